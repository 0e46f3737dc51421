"""A change record of Aurora DSQL as the item that a view must have."""

import json
import os
import time
from datetime import datetime, timedelta
from decimal import Decimal

PRIMARY_KEYS = {"public.order_items": ["id"]}
TOMBSTONE_SECONDS = 14 * 24 * 3600
EPOCH = datetime(1970, 1, 1)

# Whether the items have the shape of benches/views.toml.
SHAPED = os.environ.get("SHAPED") == "true"
RENAMED = {"order_id": "orderId", "created_at": "createdAt"}
LEFT_OUT = {"gift", "note"}


def item_of(data):
    """The item of a record; None if the view does not have its table."""
    record = json.loads(data, parse_float=Decimal)
    source = record["source"]
    table = f'{source["schema"]}.{source["table"]}'
    if table not in PRIMARY_KEYS:
        return None
    deleted = record["op"] == "d"
    row = record["before"] if deleted else record["after"]
    if SHAPED:
        key = f'ITEM#{row["id"]}'
        deleted = deleted or not is_shown(row)
    else:
        key = "#".join([table] + [str(row[column]) for column in PRIMARY_KEYS[table]])
    item = {"pk": key, "_ts_ns": min(source["ts_ns"], record["ts_ns"]), "_tx_id": source["txId"]}
    if deleted:
        item["_deleted"] = True
        item["_expires_at"] = int(time.time()) + TOMBSTONE_SECONDS
    elif SHAPED:
        item.update(shaped(row))
    else:
        item.update({column: value for column, value in row.items() if value is not None})
    return item


def is_shown(row):
    return row["quantity"] is not None and row["quantity"] >= 1


def shaped(row):
    """The attributes of a row, by the definition."""
    values = {column: value for column, value in row.items() if value is not None}
    if "price" in values:
        values["price"] = Decimal(values["price"])
    if "created_at" in values:
        values["created_at"] = iso8601(values["created_at"])
    attributes = {RENAMED.get(column, column): value for column, value in values.items() if column not in LEFT_OUT}
    if "order_id" in values:
        attributes["GSI1PK"] = f'ORDER#{values["order_id"]}'
    if "created_at" in values:
        attributes["GSI1SK"] = f'{values["created_at"]}#{values["id"]}'
    return attributes


def iso8601(microseconds):
    return (EPOCH + timedelta(microseconds=microseconds)).isoformat(timespec="microseconds") + "Z"
