"""Names that are written to a cluster. Changing one of them breaks what is already there."""

GROUP = "squidex-operator.io"
VERSION = "v1beta1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "SquidexClient"
PLURAL = "squidexclients"

FIELD_MANAGER = "squidex-operator"

# Labels. The role is what the operator's watch of Secrets selects on.
LABEL_ROLE = f"{GROUP}/role"
ROLE_TOKEN = "token"
ROLE_CREDENTIALS = "credentials"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "squidex-operator"

# Annotations of a target Secret: the truth about the token in it.
ANNOTATION_CLIENT_UID = f"{GROUP}/client-uid"
ANNOTATION_ISSUED_AT = f"{GROUP}/issued-at"
ANNOTATION_EXPIRES_AT = f"{GROUP}/expires-at"
ANNOTATION_KEY_ID = f"{GROUP}/key-id"
ANNOTATION_INPUTS_HASH = f"{GROUP}/inputs-hash"
ANNOTATION_DATA_HASH = f"{GROUP}/data-hash"

# Keys of a target Secret.
KEY_TOKEN = "token"
KEY_TOKEN_TYPE = "tokenType"
KEY_EXPIRES_AT = "expiresAt"
KEY_URL = "url"
TARGET_KEYS = (KEY_TOKEN, KEY_TOKEN_TYPE, KEY_EXPIRES_AT, KEY_URL)
