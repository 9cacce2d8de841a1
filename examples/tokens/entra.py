"""Prints a token of Microsoft Entra ID for Azure Database for PostgreSQL, by its pod's workload identity.

AKS sets the variables and mounts the file if the pod has the label azure.workload.identity/use and its
service account the annotation azure.workload.identity/client-id.
"""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

authority = os.environ["AZURE_AUTHORITY_HOST"].rstrip("/")
form = {
    "grant_type": "client_credentials",
    "client_id": os.environ["AZURE_CLIENT_ID"],
    "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    "client_assertion": Path(os.environ["AZURE_FEDERATED_TOKEN_FILE"]).read_text(),
    "scope": "https://ossrdbms-aad.database.windows.net/.default",
}
url = f"{authority}/{os.environ['AZURE_TENANT_ID']}/oauth2/v2.0/token"
with urlopen(url, urlencode(form).encode(), timeout=8) as response:
    answer = json.load(response)
expires = datetime.now(UTC) + timedelta(seconds=answer["expires_in"])
status = {"token": answer["access_token"], "expirationTimestamp": expires.isoformat()}
print(json.dumps({"kind": "ExecCredential", "status": status}))
