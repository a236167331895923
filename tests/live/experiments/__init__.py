# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All experiments, and what cannot be asked."""

from __future__ import annotations

from ..experiment import Experiment
from . import access, accounts, governance, job, keys, loss, reads, refusals, versions

# In the order in which they run: later ones use what earlier ones have found.
EXPERIMENTS: tuple[Experiment, ...] = (
    *reads.EXPERIMENTS,
    *accounts.EXPERIMENTS,
    *access.EXPERIMENTS,
    *keys.EXPERIMENTS,
    *refusals.EXPERIMENTS,
    *job.EXPERIMENTS,
    *loss.EXPERIMENTS,
    *versions.EXPERIMENTS,
    *governance.EXPERIMENTS,
)

# By switch of `/behavior` or name in `/timing`, why no experiment measures it.
NOT_ASKED = {
    "account_quota": "The quota belongs to a subscription. It says nothing about Azure.",
    "failed_account_pools": "A pool needs a virtual machine image, which the experiments do not choose.",
    "listed_subscriptions": "It needs a second caller who can read one resource group only.",
    "perimeter": "The rules of a network security perimeter belong to its owner.",
    "policy_denial": "The owner of a subscription decides what is denied. It says nothing about Azure.",
    "policy_message": "The owner of a subscription decides what is denied. It says nothing about Azure.",
    "policy_modify": "The owner of a subscription decides what is changed. It says nothing about Azure.",
    "resource_lock": "The owner of a subscription decides what is locked. `locks` records how a refusal looks.",
    "subscription_list": "It needs a second caller who cannot read all accounts. The caller of the experiments can.",
    "group_delete": "The group is deleted after the last experiment.",
    "retry_after": "Every recording of an operation that takes time has it.",
    "pool_delete": "A pool needs a virtual machine image, which the experiments do not choose.",
    "throttling": "To be throttled, the experiments would disturb others who use the subscription.",
    "vault_purge": "Vaults with purge protection cannot be purged.",
    "value_lag_of": "`value_lag` reports the delay of each kind of resource.",
}
