"""A change record of Aurora DSQL as the item that a view must have."""

import json
import time
from decimal import Decimal

PRIMARY_KEYS = {"public.order_items": ["id"]}
TOMBSTONE_SECONDS = 14 * 24 * 3600


def item_of(data):
    """The item of a record; None if the view does not have its table."""
    record = json.loads(data, parse_float=Decimal)
    source = record["source"]
    table = f'{source["schema"]}.{source["table"]}'
    if table not in PRIMARY_KEYS:
        return None
    deleted = record["op"] == "d"
    row = record["before"] if deleted else record["after"]
    key = "#".join([table] + [str(row[column]) for column in PRIMARY_KEYS[table]])
    item = {"pk": key, "_ts_ns": min(source["ts_ns"], record["ts_ns"]), "_tx_id": source["txId"]}
    if deleted:
        item["_deleted"] = True
        item["_expires_at"] = int(time.time()) + TOMBSTONE_SECONDS
    else:
        item.update({column: value for column, value in row.items() if value is not None})
    return item
