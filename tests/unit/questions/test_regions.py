# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Regions: names and display names, availability, and differences from the requested region."""

from __future__ import annotations

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._checks import regions as regions_module
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import InvalidOption
from ansible_collections.azbatch.cmk.plugins.module_utils._core.markup import plain

REGIONS = ["West Europe", "North Europe"]


@pytest.mark.parametrize("location", ["westeurope", "West Europe", "WESTEUROPE"])
def test_a_region_is_known_by_its_names(location: str) -> None:
    regions_module.require_available(location, REGIONS, "The vault")


@pytest.mark.parametrize("regions", [None, []], ids=["may not be read", "none listed"])
def test_azure_decides_if_the_regions_are_unknown(regions: list[str] | None) -> None:
    regions_module.require_available("atlantis", regions, "The vault")


def test_a_region_that_is_not_available_is_refused() -> None:
    with pytest.raises(InvalidOption) as refused:
        regions_module.require_available("atlantis", REGIONS, "The vault")

    assert refused.value.code == "location_not_available"
    assert (refused.value.facts["option"], refused.value.facts["value"]) == ("location", "atlantis")
    assert plain(refused.value.facts["remedy"]) == "Set location to a region such as northeurope, westeurope."


def test_a_resource_in_another_region_is_reported_with_both_regions() -> None:
    (warning,) = regions_module.difference("The vault v", "westeurope", "northeurope")

    assert "The vault v" in warning
    assert "westeurope" in warning
    assert "northeurope" in warning
