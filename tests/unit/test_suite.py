"""The suite itself: what its other tests rely on."""

import pytest


@pytest.mark.xdist_group("suite")
def test_a_group_of_tests_is_known_to_the_scheduler(request):
    if not request.config.getoption("loadgroup", default=False):
        pytest.skip("the tests do not run in groups")
    assert request.node.nodeid.endswith("@suite")
