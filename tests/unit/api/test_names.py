"""Names that are in clusters already: whoever changes one has to change this test, and to think of what is out there."""

from __future__ import annotations

import pytest

from squidex_operator.api import names


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("API_VERSION", "squidex-operator.io/v1beta1"),
        ("KIND", "SquidexClient"),
        ("PLURAL", "squidexclients"),
        ("FIELD_MANAGER", "squidex-operator"),
        ("LABEL_ROLE", "squidex-operator.io/role"),
        ("ROLE_TOKEN", "token"),
        ("ROLE_CREDENTIALS", "credentials"),
        ("LABEL_MANAGED_BY", "app.kubernetes.io/managed-by"),
        ("MANAGED_BY", "squidex-operator"),
        ("ANNOTATION_CLIENT_UID", "squidex-operator.io/client-uid"),
        ("ANNOTATION_ISSUED_AT", "squidex-operator.io/issued-at"),
        ("ANNOTATION_EXPIRES_AT", "squidex-operator.io/expires-at"),
        ("ANNOTATION_KEY_ID", "squidex-operator.io/key-id"),
        ("ANNOTATION_INPUTS_HASH", "squidex-operator.io/inputs-hash"),
        ("ANNOTATION_DATA_HASH", "squidex-operator.io/data-hash"),
        ("TARGET_KEYS", ("token", "tokenType", "expiresAt", "url")),
    ],
)
def test_what_is_written_to_a_cluster_stays_as_it_is(name: str, written: object) -> None:
    assert getattr(names, name) == written
