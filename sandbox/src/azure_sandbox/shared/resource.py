# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The location and the tags of a resource, which Resource Manager checks for every provider."""

from __future__ import annotations

from typing import Any

from . import errors

# The regions that have Batch. Key Vault is in each of them too.
PUBLIC = (
    "australiacentral australiaeast australiasoutheast brazilsouth brazilsoutheast canadacentral canadaeast"
    " centralindia centralus eastasia eastus eastus2 francecentral francesouth germanynorth germanywestcentral"
    " israelcentral italynorth japaneast japanwest jioindiawest koreacentral koreasouth mexicocentral northcentralus"
    " northeurope norwayeast norwaywest polandcentral qatarcentral southafricanorth southafricawest southcentralus"
    " southindia southeastasia spaincentral swedencentral swedensouth switzerlandnorth switzerlandwest uaecentral"
    " uaenorth uksouth ukwest westcentralus westeurope westindia westus westus2 westus3"
).split()
US_GOVERNMENT = "usdodcentral usdodeast usgovarizona usgovtexas usgovvirginia".split()
CHINA = "chinaeast chinaeast2 chinaeast3 chinanorth chinanorth2 chinanorth3".split()

# Regions for Microsoft's own tests: resources can be created in them, but no list names them.
CANARY = ("centraluseuap", "eastus2euap")

# The sandbox has one world for all clouds, so each cloud accepts the regions of all clouds.
REGIONS = tuple(sorted([*PUBLIC, *US_GOVERNMENT, *CHINA]))


def tidy_location(location: str) -> str:
    """The normalized name of a region: `West Europe` becomes `westeurope`."""
    return location.replace(" ", "").lower()


def read_tags(value: Any) -> dict[str, str]:
    """The tags in a request body; an empty dictionary for null. Raises AzureError."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise errors.invalid_request_content("The value of 'tags' must be an object of strings")
    return dict(value)
