"""Prints a token of Google Cloud for Cloud SQL, by the workload identity of its pod.

The URL's user is the service account's address without .gserviceaccount.com.
"""

import json
import os
from datetime import UTC, datetime, timedelta
from urllib.request import Request, urlopen

host = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
url = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token"
with urlopen(Request(url, headers={"Metadata-Flavor": "Google"}), timeout=8) as response:
    answer = json.load(response)
expires = datetime.now(UTC) + timedelta(seconds=answer["expires_in"])
status = {"token": answer["access_token"], "expirationTimestamp": expires.isoformat()}
print(json.dumps({"kind": "ExecCredential", "status": status}))
