"""The view in DynamoDB."""

import os

import boto3
from botocore.config import Config

from change import item_of

TABLE = os.environ["VIEW_TABLE"]
THREADS = 32

# The client beneath the resource: it takes plain values, and can be used by many threads.
dynamodb = boto3.resource("dynamodb", config=Config(max_pool_connections=THREADS)).meta.client


def apply(data):
    """Puts the row of a record, if it is newer than what stands there."""
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
