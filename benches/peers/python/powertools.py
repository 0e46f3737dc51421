"""The batch processor of Powertools for AWS Lambda."""

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response

from view import apply

processor = BatchProcessor(event_type=EventType.KinesisDataStreams)


def put(record):
    apply(record.kinesis.data_as_bytes())


def handler(event, context):
    return process_partial_response(event=event, record_handler=put, processor=processor, context=context)
