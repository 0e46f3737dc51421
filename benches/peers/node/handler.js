// All records at once, over the 50 sockets that the SDK keeps open by default.
"use strict";

const { ConditionalCheckFailedException, DynamoDBClient } = require("@aws-sdk/client-dynamodb");
const { DynamoDBDocumentClient, NumberValue, PutCommand } = require("@aws-sdk/lib-dynamodb");

const PRIMARY_KEYS = { "public.order_items": ["id"] };
const TOMBSTONE_SECONDS = 14 * 24 * 3600;

// Whether the items have the shape of benches/views.toml.
const SHAPED = process.env.SHAPED === "true";
const RENAMED = { order_id: "orderId", created_at: "createdAt" };
const LEFT_OUT = new Set(["gift", "note"]);

const sockets = { maxSockets: 50 };
const dynamodb = DynamoDBDocumentClient.from(
  new DynamoDBClient({ requestHandler: { httpAgent: sockets, httpsAgent: sockets } }),
);

// JavaScript's numbers cannot hold 19 digits, so both timestamps come from the text.
function committed(text, record) {
  const digits = [...text.matchAll(/"ts_ns":(\d+)/g)].map((match) => BigInt(match[1]));
  if (digits.length < 2) throw new Error(`no commit timestamps in a record of ${record.source.table}`);
  const [source, root] = [digits[0], digits[digits.length - 1]];
  return source < root ? source : root;
}

function isShown(row) {
  return row.quantity !== null && row.quantity >= 1;
}

// A Date has milliseconds.
function iso8601(microseconds) {
  const date = new Date(Math.floor(microseconds / 1000)).toISOString();
  return `${date.slice(0, -1)}${String(microseconds % 1000).padStart(3, "0")}Z`;
}

// The attributes of a row, by the definition.
function shaped(row) {
  const attributes = {};
  for (const [column, value] of Object.entries(row)) {
    if (value === null || LEFT_OUT.has(column)) continue;
    attributes[RENAMED[column] ?? column] = value;
  }
  if (row.price !== null) attributes.price = NumberValue.from(row.price);
  if (row.order_id !== null) attributes.GSI1PK = `ORDER#${row.order_id}`;
  if (row.created_at !== null) {
    attributes.createdAt = iso8601(row.created_at);
    attributes.GSI1SK = `${attributes.createdAt}#${row.id}`;
  }
  return attributes;
}

function itemOf(text) {
  const record = JSON.parse(text);
  const table = `${record.source.schema}.${record.source.table}`;
  const primaryKey = PRIMARY_KEYS[table];
  if (!primaryKey) return undefined;
  const row = record.op === "d" ? record.before : record.after;
  const deleted = record.op === "d" || (SHAPED && !isShown(row));
  const item = {
    pk: SHAPED ? `ITEM#${row.id}` : [table, ...primaryKey.map((column) => row[column])].join("#"),
    _ts_ns: committed(text, record),
    _tx_id: record.source.txId,
  };
  if (deleted) {
    item._deleted = true;
    item._expires_at = Math.floor(Date.now() / 1000) + TOMBSTONE_SECONDS;
  } else if (SHAPED) {
    Object.assign(item, shaped(row));
  } else {
    for (const [column, value] of Object.entries(row)) if (value !== null) item[column] = value;
  }
  return item;
}

async function put(record) {
  const item = itemOf(Buffer.from(record.kinesis.data, "base64").toString("utf8"));
  if (!item) return;
  try {
    await dynamodb.send(
      new PutCommand({
        TableName: process.env.VIEW_TABLE,
        Item: item,
        ConditionExpression: "attribute_not_exists(#ts) OR #ts < :ts",
        ExpressionAttributeNames: { "#ts": "_ts_ns" },
        ExpressionAttributeValues: { ":ts": item._ts_ns },
      }),
    );
  } catch (error) {
    if (!(error instanceof ConditionalCheckFailedException)) throw error;
  }
}

exports.handler = async (event) => {
  const settled = await Promise.allSettled(event.Records.map(put));
  const batchItemFailures = [];
  settled.forEach((result, place) => {
    if (result.status === "fulfilled") return;
    console.error(result.reason);
    batchItemFailures.push({ itemIdentifier: event.Records[place].kinesis.sequenceNumber });
  });
  return { batchItemFailures };
};
