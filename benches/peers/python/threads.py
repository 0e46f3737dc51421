"""The records on a pool of threads."""

import base64
from concurrent.futures import ThreadPoolExecutor

from view import THREADS, apply

pool = ThreadPoolExecutor(THREADS)


def failed(record):
    try:
        apply(base64.b64decode(record["kinesis"]["data"]))
        return False
    except Exception as error:
        print(error)
        return True


def handler(event, context):
    records = event["Records"]
    failures = [
        {"itemIdentifier": record["kinesis"]["sequenceNumber"]}
        for record, has_failed in zip(records, pool.map(failed, records))
        if has_failed
    ]
    return {"batchItemFailures": failures}
