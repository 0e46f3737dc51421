"""One record after the other."""

import base64

from view import apply


def handler(event, context):
    failures = []
    for record in event["Records"]:
        try:
            apply(base64.b64decode(record["kinesis"]["data"]))
        except Exception as error:
            print(error)
            failures.append({"itemIdentifier": record["kinesis"]["sequenceNumber"]})
    return {"batchItemFailures": failures}
