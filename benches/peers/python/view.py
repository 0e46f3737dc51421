"""The view in DynamoDB."""

import os

import boto3
from botocore.config import Config

from change import item_of

TABLE = os.environ["VIEW_TABLE"]
THREADS = 32

# The client below the resource: it takes plain values, and many threads can use it.
dynamodb = boto3.resource("dynamodb", config=Config(max_pool_connections=THREADS)).meta.client


def apply(data):
    """Puts the row of a record, if it is newer than the item in the view."""
    item = item_of(data)
    if item is None:
        return
    try:
        dynamodb.put_item(
            TableName=TABLE,
            Item=item,
            ConditionExpression="attribute_not_exists(#ts) OR #ts < :ts",
            ExpressionAttributeNames={"#ts": "_ts_ns"},
            ExpressionAttributeValues={":ts": item["_ts_ns"]},
        )
    except dynamodb.exceptions.ConditionalCheckFailedException:
        pass
