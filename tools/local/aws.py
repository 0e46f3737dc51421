"""A local AWS with template.yaml deployed to it, as long as standard input is open: aws.py <template> <settings>

It starts ministack on a port of the loopback interface, deploys the template with the binaries of both functions, the
change stream and the role of the capture among its resources, and switches off the one thing that ministack does in a
way that loses records: its mapping of the stream. Then it writes one line of JSON to standard output, with what has
come to be. The settings are JSON too.

Whoever has started it ends it by closing its standard input, or by ending in whatever way: processes and the folder of
temporary files go with it.
"""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zipfile
from importlib.metadata import version

import botocore.config
import botocore.session
from samtranslator.yaml_helper import yaml_parse

REGION = "us-east-1"
STACK = "dsql-view"
CODE = "code"
SERVICES = "cloudformation,dynamodb,events,iam,kinesis,lambda,logs,monitoring,s3,sns,sqs,sts"
# Seconds.
LONGEST_START = 120
LONGEST_DEPLOYMENT = 120


class Ministack:
    """The process, with the functions' processes in its group."""

    def __init__(self, port, account, secret):
        self.folder = tempfile.mkdtemp(prefix="dsql-view-local-")
        # A signal can come while it is held.
        self.lock = threading.RLock()
        self.process = None
        self.is_ended = False
        self.endpoint = f"http://127.0.0.1:{port}"
        # Nothing of the caller's own account comes along.
        self.environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": self.folder,
            "TMPDIR": self.folder,
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "SERVICES": SERVICES,
            "LOG_LEVEL": "WARNING",
            "MINISTACK_ACCOUNT_ID": account,
            # A listener with a port of its own.
            "IOT_MTLS_ENABLED": "0",
            # It gives these to the functions. Their LoggingConfig it does not give them.
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_LAMBDA_LOG_FORMAT": "JSON",
        }

    def start(self):
        command = [os.path.join(os.path.dirname(sys.executable), "ministack")]
        with self.lock, open(self.log(), "wb") as log:
            self.process = subprocess.Popen(
                command,
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + LONGEST_START
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > end:
                raise Failure("ministack did not come")
            time.sleep(0.1)

    def answers(self):
        # Whatever proxy the environment names is for the world outside.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(f"{self.endpoint}/_ministack/health", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def log(self):
        return os.path.join(self.folder, "ministack.log")

    def last_lines(self):
        try:
            with open(self.log(), errors="replace") as log:
                return "".join(log.readlines()[-30:])
        except OSError:
            return ""

    def end(self):
        """Ends it at once: it keeps nothing, so it needs no time for that."""
        with self.lock:
            self.is_ended = True
            if self.process:
                try:
                    os.killpg(self.process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                self.process.wait()
            shutil.rmtree(self.folder, ignore_errors=True)


class Failure(Exception):
    pass


def say(text):
    print(f"  {text}", file=sys.stderr, flush=True)


def zipped(binary):
    """What `sam build` and `sam deploy` upload of a function."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.write(binary, "bootstrap")
    return file.getvalue()


def settled(condition, parameters):
    """A condition with the text that each Fn::Select gives: ministack knows no Fn::Split within a condition."""
    if isinstance(condition, list):
        return [settled(part, parameters) for part in condition]
    if not isinstance(condition, dict):
        return condition
    if "Fn::Select" in condition:
        place, split = condition["Fn::Select"]
        by, text = split["Fn::Split"]
        return re.sub(r"\$\{(\w+)\}", lambda name: parameters[name[1]], text["Fn::Sub"]).split(by)[place]
    return {name: settled(part, parameters) for name, part in condition.items()}


class Deployment:
    def __init__(self, ministack, settings):
        self.settings = settings
        self.session = botocore.session.Session()
        self.endpoint = ministack.endpoint

    def client(self, service):
        config = botocore.config.Config(proxies={}, read_timeout=300, retries={"total_max_attempts": 1})
        return self.session.create_client(
            service,
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id=self.settings["access_key"],
            aws_secret_access_key=self.settings["secret_key"],
            config=config,
        )

    def template(self, text):
        """Where template.yaml is, as `sam deploy` puts it: it and each function's code are objects in a bucket."""
        template = yaml_parse(text)
        defaults = {name: parameter.get("Default", "") for name, parameter in template["Parameters"].items()}
        template["Conditions"] = settled(template["Conditions"], defaults | self.settings["parameters"])
        for resource in template["Resources"].values():
            # It knows no alarm on a query either. Nobody looks at the alarms.
            if resource["Properties"].pop("Metrics", None):
                resource["Properties"].update(Namespace="dsql-view", MetricName="any", Statistic="Sum", Period=300)
        s3 = self.client("s3")
        s3.create_bucket(Bucket=CODE)
        for function, binary in self.settings["binaries"].items():
            key = f"{function}.zip"
            s3.put_object(Bucket=CODE, Key=key, Body=zipped(binary))
            template["Resources"][function]["Properties"]["CodeUri"] = {"Bucket": CODE, "Key": key}
        s3.put_object(Bucket=CODE, Key="template.json", Body=json.dumps(template))
        return f"{self.endpoint}/{CODE}/template.json"

    def create_stack(self, template, parameters):
        """What its resources are called, by their names in the template."""
        cloudformation = self.client("cloudformation")
        cloudformation.create_stack(
            StackName=STACK,
            TemplateURL=template,
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        )
        end = time.monotonic() + LONGEST_DEPLOYMENT
        while True:
            status = cloudformation.describe_stacks(StackName=STACK)["Stacks"][0]["StackStatus"]
            if status == "CREATE_COMPLETE":
                break
            if not status.endswith("_IN_PROGRESS") or time.monotonic() > end:
                events = cloudformation.describe_stack_events(StackName=STACK)["StackEvents"]
                failed = [
                    f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', '')}"
                    for event in events
                    if event["ResourceStatus"].endswith("FAILED")
                ]
                raise Failure("\n".join([f"expected the stack to be CREATE_COMPLETE, found {status}", *failed]))
            time.sleep(0.1)
        pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=STACK)
        resources = pages.build_full_result()["StackResourceSummaries"]
        types = {resource["ResourceType"] for resource in resources}
        say(f"deployed template.yaml: {len(resources)} resources of {len(types)} types, all of them {status}")
        return {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}

    def put_the_proxy_between(self, function):
        """Lets a function reach DynamoDB by way of the proxy: its configuration."""
        client = self.client("lambda")
        variables = client.get_function_configuration(FunctionName=function)["Environment"]["Variables"]
        variables["AWS_ENDPOINT_URL_DYNAMODB"] = self.settings["dynamodb"]
        return client.update_function_configuration(FunctionName=function, Environment={"Variables": variables})

    def take_over_the_mapping(self, names):
        """Switches off ministack's mapping of the stream, before there is a record: its settings."""
        client = self.client("lambda")
        # As SAM names it: the function and its event.
        mapping = client.update_event_source_mapping(UUID=names["ViewFunctionChanges"], Enabled=False)
        say("switched off its mapping of the stream, and took its settings over")
        number = lambda name: int(mapping[name])
        return {
            "batch_size": number("BatchSize"),
            "window_seconds": number("MaximumBatchingWindowInSeconds"),
            "parallelization": number("ParallelizationFactor"),
            "maximum_retries": number("MaximumRetryAttempts"),
            "maximum_age_seconds": number("MaximumRecordAgeInSeconds"),
            "bisects": str(mapping["BisectBatchOnFunctionError"]).lower() == "true",
            "reports_failures": "ReportBatchItemFailures" in mapping["FunctionResponseTypes"],
            "on_failure": mapping["DestinationConfig"]["OnFailure"]["Destination"],
        }


def deploy(ministack, template, settings):
    deployment = Deployment(ministack, settings)
    names = deployment.create_stack(deployment.template(template), settings["parameters"])
    kinesis = deployment.client("kinesis")
    stream = kinesis.describe_stream_summary(StreamName=names["ChangeStream"])["StreamDescriptionSummary"]
    mapping = deployment.take_over_the_mapping(names)
    sqs = deployment.client("sqs")
    queue_url = lambda queue: sqs.get_queue_url(QueueName=queue.rsplit(":", 1)[-1].rsplit("/", 1)[-1])["QueueUrl"]
    function = deployment.put_the_proxy_between(names["ViewFunction"])
    variables = function["Environment"]["Variables"]
    return {
        "endpoint": ministack.endpoint,
        "stream_arn": stream["StreamARN"],
        "function": names["ViewFunction"],
        "timeout_seconds": function["Timeout"],
        "view": variables["VIEW_TABLE"],
        "bucket": variables["OBJECTS_BUCKET"],
        "on_failure_queue": queue_url(mapping.pop("on_failure")),
        "dead_letter_queue": queue_url(names["DeadLetterQueue"]),
        "mapping": mapping,
    }


def main():
    template, settings = sys.argv[1], json.loads(sys.argv[2])
    with open(template) as file:
        template = file.read()
    # Which profile the caller has is of no interest here, nor whether it is there.
    os.environ.pop("AWS_PROFILE", None)
    os.environ.update(AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull)
    ministack = Ministack(settings["port"], settings["account"], settings["secret_key"])

    def end(*_):
        ministack.end()
        os._exit(0)

    def end_with_the_input():
        sys.stdin.buffer.read()
        end()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    threading.Thread(target=end_with_the_input, daemon=True).start()
    try:
        ministack.start()
        say(f"ministack {version('ministack')} listens on {ministack.endpoint}")
        print(json.dumps(deploy(ministack, template, settings)), flush=True)
        ministack.process.wait()
        raise Failure("ministack has ended")
    except Exception as error:
        if not ministack.is_ended:
            print(f"{type(error).__name__}: {error}\n{ministack.last_lines()}", file=sys.stderr, flush=True)
        ministack.end()
        os._exit(1)


if __name__ == "__main__":
    main()
