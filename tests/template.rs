//! `template.yaml` sets the variables that the code reads, reads the stream in the one way that loses nothing, and
//! retains the data that must stay.

mod stack;

use std::collections::BTreeSet;

use dsql_view::bucket::s3::RETIRED;
use dsql_view::config::{SHORTEST_STREAM_RETENTION, VARIABLES};
use dsql_view::definitions::source_tables::SourceTables;
use dsql_view::quarantine::QUARANTINE;
use dsql_view::record::fragments::FRAGMENTS;
use dsql_view::redrive::Invocation;
use dsql_view::redrive::queue::Message;
use serde_norway::Value;
use stack::evaluated::Stack;
use stack::{at, named, number, properties, resolved, template, texts};

const FUNCTIONS: [&str; 2] = ["ViewFunction", "RedriveFunction"];
const QUEUES: [&str; 2] = ["OnFailureQueue", "DeadLetterQueue"];

/// The seconds that a message waits after its n-th failed delivery.
fn wait_after(delivery: u64) -> u64 {
    let attributes = serde_json::json!({ "ApproximateReceiveCount": delivery.to_string() });
    let message = serde_json::json!({ "messageId": "m", "attributes": attributes });
    serde_json::from_value::<Message>(message).unwrap().wait().as_secs()
}

#[test]
fn each_function_has_every_variable_that_the_code_reads_and_no_other() {
    let template = template();
    let environment = |function: &str| at(properties(&template, function), "Environment");
    let variables = at(environment("ViewFunction"), "Variables").as_mapping().unwrap();
    let set: BTreeSet<&str> = variables.keys().map(|name| name.as_str().unwrap()).collect();
    // A unit test of the library checks that VARIABLES are the variables that it reads.
    assert_eq!(set, BTreeSet::from(VARIABLES));
    // With another value of one of them, the functions would disagree about the view.
    assert_eq!(environment("ViewFunction"), environment("RedriveFunction"));
}

#[test]
fn the_logs_have_lambda_s_format_and_level_which_the_functions_follow() {
    let template = template();
    for (function, logs) in FUNCTIONS.into_iter().zip(["FunctionLogs", "RedriveLogs"]) {
        let logging = at(properties(&template, function), "LoggingConfig");
        assert_eq!(logging["LogFormat"], "JSON");
        assert_eq!(named(&logging["LogGroup"]), logs);
        // Metrics are lines at INFO level, so an !If overrides a level that would hide them.
        let Value::Tagged(level) = &logging["ApplicationLogLevel"] else { panic!("{function} can lose its metrics") };
        assert_eq!(level.tag, "!If");
        assert_eq!((&level.value[0], &level.value[1]), (&"LogLevelHidesInfo".into(), &"INFO".into()));
        assert_eq!(resolved(&template, &level.value[2]), "INFO");
        let logs = at(&template, &format!("Resources/{logs}"));
        for policy in ["DeletionPolicy", "UpdateReplacePolicy"] {
            assert_eq!(logs[policy], "Delete");
        }
        assert!(number(&template, at(logs, "Properties/RetentionInDays")) > 0);
    }
}

#[test]
fn the_defaults_of_the_settings_are_the_code_s() {
    let variables = Stack::with(&[]).properties("ViewFunction")["Environment"]["Variables"].clone();
    let default = |name: &str| match &variables[name] {
        serde_json::Value::Number(number) => number.to_string(),
        text => text.as_str().unwrap().to_owned(),
    };
    let of = |defaults: bool| {
        let variable = |name: &str| match name {
            "VIEW_TABLE" => Some("view".to_owned()),
            "SOURCE_TABLES" => Some("users(id)".to_owned()),
            // The template makes its own bucket; without the setting, the function has none.
            "OBJECTS_BUCKET" => None,
            _ => defaults.then(|| default(name)),
        };
        format!("{:?}", dsql_view::config::Config::from_variables(variable).unwrap())
    };
    assert_eq!(of(true), of(false));
}

#[test]
fn a_tombstone_that_is_shorter_than_a_change_can_be_late_is_refused() {
    const DAY: u64 = 86_400;
    let template = template();
    let pattern = at(&template, "Parameters/TombstoneTtl/AllowedPattern").as_str().unwrap();
    let takes = regex::Regex::new(&format!("^(?:{pattern})$")).unwrap();
    let seconds = |text: &str| {
        let variable = |name: &str| match name {
            "TOMBSTONE_TTL" => Some(text.to_owned()),
            "SOURCE_TABLES" => Some("users(id)".to_owned()),
            _ => (name == "VIEW_TABLE").then(|| "view".to_owned()),
        };
        dsql_view::config::Config::from_variables(variable).unwrap().tombstone_ttl.as_secs()
    };
    // All values around the bound, and around each power of ten, where a pattern of digits can go wrong.
    for (unit, length) in [("s", 1), ("m", 60), ("h", 3600), ("d", DAY), ("w", 7 * DAY)] {
        let least = (9 * DAY).div_ceil(length);
        let around = |middle: u64| (middle.saturating_sub(120)..middle + 120).chain([middle * 5, middle * 9 + 9]);
        let powers = (0..8).map(|power| 10_u64.pow(power)).filter(|number| number * length < 36_000 * DAY);
        for number in powers
            .chain([least, 3 * least])
            .flat_map(around)
            .filter(|number| (1..=36_500 * DAY / length).contains(number))
        {
            let text = format!("{number}{unit}");
            assert_eq!(takes.is_match(&text), number >= least, "{text}");
            assert_eq!(seconds(&text), number * length, "{text}");
        }
    }
    // With other units before and after it.
    for text in ["14d", "2w", "1w 9d", "9d 1s", "5m 12d 3h", "10d12h", "1h 216h", "1w2d9d "] {
        assert!(takes.is_match(text), "{text}");
        assert!(seconds(text.trim()) >= 9 * DAY, "{text}");
    }
    for text in [
        "",
        "8d",
        "1w",
        "1w 1d",
        "8d 23h",
        "1d 1d 1d 1d 1d 1d 1d 1d 1d",
        "36h",
        "14",
        "0d",
        "014d",
        "14 d",
        "-14d",
        "14d;",
        "14y",
        "9 d",
    ] {
        assert!(!takes.is_match(text), "{text}");
    }
    // The functions do not warn about the default.
    let default = at(&template, "Parameters/TombstoneTtl/Default").as_str().unwrap();
    assert!(takes.is_match(default));
}

#[test]
fn the_stream_is_read_so_that_nothing_is_lost() {
    let template = template();
    let event = at(properties(&template, "ViewFunction"), "Events/Changes");
    assert_eq!(event["Type"], "Kinesis");
    let mapping = at(event, "Properties");
    // LATEST misses records while the mapping is created. Without the response type, Lambda ignores the reported
    // records.
    assert_eq!(mapping["StartingPosition"], "TRIM_HORIZON");
    assert_eq!(texts(&mapping["FunctionResponseTypes"]), BTreeSet::from(["ReportBatchItemFailures"]));
    assert_eq!(mapping["BisectBatchOnFunctionError"], true);
    assert_eq!(at(mapping, "DestinationConfig/OnFailure/Type"), "SQS");
    // A filter would drop fragments for good, because they carry no table; a tumbling window has another purpose.
    for absent in ["FilterCriteria", "TumblingWindowInSeconds"] {
        assert!(mapping.get(absent).is_none(), "{absent} is set");
    }
    // The ranges from Lambda's documentation; cfn-lint does not check them on a SAM event.
    for (property, range) in [
        ("BatchSize", 1..=10_000),
        ("MaximumBatchingWindowInSeconds", 0..=300),
        ("ParallelizationFactor", 1..=10),
        ("MaximumRetryAttempts", -1..=10_000),
        ("MaximumRecordAgeInSeconds", 60..=604_800),
    ] {
        let Value::Tagged(reference) = &mapping[property] else { panic!("{property} is no parameter") };
        let parameter = at(&template, &format!("Parameters/{}", reference.value.as_str().unwrap()));
        let number = |name: &str| parameter[name].as_i64().unwrap_or_else(|| panic!("{property} has no {name}"));
        assert_eq!(number("MinValue")..=number("MaxValue"), range, "{property}");
        assert!(range.contains(&number("Default")), "{property}");
    }
}

#[test]
fn what_the_stream_s_mapping_gives_up_is_redriven_message_by_message() {
    let template = template();
    let event = at(properties(&template, "RedriveFunction"), "Events/Messages");
    assert_eq!(event["Type"], "SQS");
    let mapping = at(event, "Properties");
    assert_eq!(named(&mapping["Queue"]), "OnFailureQueue.Arn");
    let given_up = "Events/Changes/Properties/DestinationConfig/OnFailure/Destination";
    assert_eq!(at(properties(&template, "ViewFunction"), given_up), &mapping["Queue"]);
    assert_eq!(mapping["BatchSize"], 1);
    // Without it, Lambda removes unfinished messages.
    assert_eq!(texts(&mapping["FunctionResponseTypes"]), BTreeSet::from(["ReportBatchItemFailures"]));
    // The lowest value that Lambda takes.
    assert_eq!(at(mapping, "ScalingConfig/MaximumConcurrency"), 2);
    // Lambda removes messages that a filter does not match.
    assert!(mapping.get("FilterCriteria").is_none());
}

#[test]
fn what_waits_in_the_bucket_is_looked_at_twice_an_hour() {
    let template = template();
    for name in ["CheckFragments", "CheckQuarantine"] {
        let event = at(properties(&template, "RedriveFunction"), &format!("Events/{name}"));
        assert_eq!(event["Type"], "Schedule");
        assert_eq!(at(event, "Properties/Schedule"), "rate(30 minutes)");
        let input = at(event, "Properties/Input").as_str().unwrap();
        let invocation: Invocation = serde_json::from_str(input).unwrap();
        assert_eq!(format!("{invocation:?}"), name);
    }
}

#[test]
fn a_queue_is_encrypted_kept_and_takes_tls_alone() {
    let template = template();
    for queue in QUEUES {
        let policy_of_queue = format!("{queue}Policy");
        for resource in [queue, &policy_of_queue] {
            let resource = at(&template, &format!("Resources/{resource}"));
            for policy in ["DeletionPolicy", "UpdateReplacePolicy"] {
                assert_eq!(resource[policy], "Retain");
            }
        }
        let properties_of_queue = properties(&template, queue);
        assert_eq!(Stack::with(&[]).properties(queue)["SqsManagedSseEnabled"], true);
        // Fourteen days, the longest time for which SQS keeps a message.
        assert_eq!(properties_of_queue["MessageRetentionPeriod"], 14 * 86_400);
        let policy = properties(&template, &policy_of_queue);
        let queues: Vec<&str> = policy["Queues"].as_sequence().unwrap().iter().map(named).collect();
        assert_eq!(queues, [queue]);
        let statement = &at(policy, "PolicyDocument/Statement")[0];
        assert_eq!((&statement["Effect"], &statement["Action"]), (&"Deny".into(), &"sqs:*".into()));
        assert_eq!(statement["Principal"], "*");
        assert_eq!(named(&statement["Resource"]), format!("{queue}.Arn"));
        assert_eq!(at(statement, "Condition/Bool/aws:SecureTransport"), "false");
    }
}

#[test]
fn redriving_ends_while_the_stream_still_has_the_records() {
    let template = template();
    let time_out = number(&template, &properties(&template, "RedriveFunction")["Timeout"]);
    assert_eq!(time_out, 900);
    let queue = properties(&template, "OnFailureQueue");
    // As Lambda advises, so that a message does not come a second time while the function works on it.
    assert!(number(&template, &queue["VisibilityTimeout"]) >= 6 * time_out);
    let policy = &queue["RedrivePolicy"];
    assert_eq!(named(&policy["deadLetterTargetArn"]), "DeadLetterQueue.Arn");

    let attempts = number(&template, &policy["maxReceiveCount"]);
    let gives_up = &at(properties(&template, "ViewFunction"), "Events/Changes/Properties")["MaximumRecordAgeInSeconds"];
    let waits_between: u64 = (1..attempts).map(wait_after).sum();
    let stream_keeps = SHORTEST_STREAM_RETENTION.as_secs();
    assert!(number(&template, gives_up) + waits_between < stream_keeps);
    // This holds even if each attempt takes all its time, and a last wait passes before SQS moves the message to the
    // dead-letter queue, where a person sees it.
    let waits: u64 = (1..=attempts).map(wait_after).sum();
    assert!(number(&template, gives_up) + waits + attempts * time_out < stream_keeps);

    // A message that expires in its queue is lost silently, so even the most attempts leave a person some of the
    // fourteen days.
    let parameter = at(&template, &format!("Parameters/{}", named(&policy["maxReceiveCount"])));
    let bound = |name: &str| parameter[name].as_u64().unwrap_or_else(|| panic!("RedriveAttempts has no {name}"));
    assert!(bound("MinValue") >= 5, "Lambda advises five receives at least");
    let most_waits: u64 = (1..=bound("MaxValue")).map(|delivery| wait_after(delivery) + time_out).sum();
    assert!(most_waits < 10 * 86_400, "{most_waits} s");
}

#[test]
fn the_view_outlives_its_stack_and_its_tombstones_do_not_outlive_their_time() {
    let template = template();
    let table = at(&template, "Resources/ViewTable");
    for policy in ["DeletionPolicy", "UpdateReplacePolicy"] {
        assert_eq!(table[policy], "Retain");
    }
    let table = at(table, "Properties");
    assert_eq!(table["BillingMode"], "PAY_PER_REQUEST");
    assert_eq!(at(table, "TimeToLiveSpecification/AttributeName"), "_expires_at");
    assert_eq!(at(table, "TimeToLiveSpecification/Enabled").as_bool(), Some(true));
    assert_eq!(at(table, "PointInTimeRecoverySpecification/PointInTimeRecoveryEnabled").as_bool(), Some(true));
    assert_eq!(at(table, "SSESpecification/SSEEnabled").as_bool(), Some(true));
    // One partition key of type S, as the function needs it, with a name that no column is likely to have.
    let key = table["KeySchema"].as_sequence().unwrap();
    let definition = table["AttributeDefinitions"].as_sequence().unwrap();
    assert_eq!((key.len(), definition.len()), (1, 1));
    assert_eq!((&key[0]["KeyType"], &definition[0]["AttributeType"]), (&"HASH".into(), &"S".into()));
    assert!(key[0]["AttributeName"].as_str().unwrap().starts_with('_'));
}

#[test]
fn the_bucket_is_private_encrypted_kept_and_takes_tls_alone() {
    let template = template();
    let bucket = at(&template, "Resources/ObjectsBucket");
    for policy in ["DeletionPolicy", "UpdateReplacePolicy"] {
        assert_eq!(bucket[policy], "Retain");
    }
    let bucket = at(bucket, "Properties");
    assert!(bucket.get("BucketEncryption").is_some());
    // Objects have no access lists of their own beside the policies.
    assert_eq!(at(bucket, "OwnershipControls/Rules")[0]["ObjectOwnership"], "BucketOwnerEnforced");
    for block in ["BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"] {
        assert_eq!(at(bucket, &format!("PublicAccessBlockConfiguration/{block}")).as_bool(), Some(true), "{block}");
    }
    let policy = properties(&template, "ObjectsBucketPolicy");
    assert_eq!(named(&policy["Bucket"]), "ObjectsBucket");
    let statement = &at(policy, "PolicyDocument/Statement")[0];
    assert_eq!((&statement["Effect"], &statement["Action"]), (&"Deny".into(), &"s3:*".into()));
    assert_eq!(statement["Principal"], "*");
    let resources: Vec<&str> = statement["Resource"].as_sequence().unwrap().iter().map(named).collect();
    assert_eq!(resources, ["ObjectsBucket.Arn", "${ObjectsBucket.Arn}/*"]);
    assert_eq!(at(statement, "Condition/Bool/aws:SecureTransport"), "false");
}

#[test]
fn the_bucket_removes_what_is_not_needed_and_no_part_of_the_view() {
    const OVERFLOW: &str = "overflow/";
    let template = template();
    let rules = at(properties(&template, "ObjectsBucket"), "LifecycleConfiguration/Rules").as_sequence().unwrap();
    let mut expiring = BTreeSet::new();
    for rule in rules {
        assert_eq!(rule["Status"], "Enabled");
        let Some(days) = rule.get("ExpirationInDays") else { continue };
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let tag = |tag: &Value| (text(&tag["Key"]), text(&tag["Value"]));
        let tags: Vec<_> = rule.get("TagFilters").and_then(Value::as_sequence).into_iter().flatten().map(tag).collect();
        expiring.insert((text(at(rule, "Prefix")), tags, number(&template, days)));
    }
    let unneeded = (RETIRED.0.to_owned(), RETIRED.1.to_owned());
    let expected = [
        (QUARANTINE.to_owned(), vec![], 90),
        (FRAGMENTS.to_owned(), vec![], 14),
        (OVERFLOW.to_owned(), vec![unneeded], 1),
    ];
    assert_eq!(expiring, BTreeSet::from(expected));
    let tables: SourceTables = "users(id)".parse().unwrap();
    assert!(tables.iter().all(|table| table.objects_folder().starts_with(OVERFLOW)));
    assert!(rules.iter().any(|rule| rule.get("AbortIncompleteMultipartUpload").is_some()));
}

#[test]
fn the_functions_are_built_by_the_makefile_for_lambda_s_rust_runtime() {
    let template = template();
    let makefile = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Makefile")).unwrap();
    for name in FUNCTIONS {
        let function = at(&template, &format!("Resources/{name}"));
        assert_eq!(at(function, "Metadata/BuildMethod"), "makefile");
        assert!(makefile.contains(&format!("\nbuild-{name}:")), "sam build calls the target build-{name}");
        let function = at(function, "Properties");
        assert_eq!((&function["CodeUri"], &function["Handler"]), (&".".into(), &"bootstrap".into()));
        assert_eq!(function["Runtime"], "provided.al2023");
        let architectures = function["Architectures"].as_sequence().unwrap();
        assert_eq!(resolved(&template, &architectures[0]), "arm64");
        // Reserved concurrency is taken from the rest of the account, and stops the function if it is too little.
        assert!(function.get("ReservedConcurrentExecutions").is_none());
    }
    assert_eq!(number(&template, &properties(&template, "RedriveFunction")["MemorySize"]), 1024);
}

#[test]
fn every_parameter_says_what_it_is() {
    let template = template();
    for (name, parameter) in at(&template, "Parameters").as_mapping().unwrap() {
        let description = parameter.get("Description").and_then(Value::as_str).unwrap_or_default();
        assert!(description.len() > 4, "{name:?} has no description");
    }
}

#[test]
fn every_parameter_has_one_place_among_the_groups() {
    let template = template();
    let groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"].as_sequence().unwrap();
    let grouped = groups.iter().flat_map(|group| group["Parameters"].as_sequence().unwrap());
    let mut grouped: Vec<&str> = grouped.map(|name| name.as_str().unwrap()).collect();
    let parameters = at(&template, "Parameters").as_mapping().unwrap();
    let mut parameters: Vec<&str> = parameters.keys().map(|name| name.as_str().unwrap()).collect();
    grouped.sort_unstable();
    parameters.sort_unstable();
    assert_eq!(grouped, parameters);
}

#[test]
fn the_outputs_name_what_a_person_works_with() {
    let template = template();
    for (output, resource) in [
        ("ViewTableName", "ViewTable"),
        ("FunctionName", "ViewFunction"),
        ("FunctionLogGroup", "FunctionLogs"),
        ("RedriveFunctionLogGroup", "RedriveLogs"),
        ("RedriveFunctionName", "RedriveFunction"),
        ("OnFailureQueueUrl", "OnFailureQueue"),
        ("DeadLetterQueueUrl", "DeadLetterQueue"),
        ("ObjectsBucketName", "ObjectsBucket"),
    ] {
        assert_eq!(named(at(&template, &format!("Outputs/{output}/Value"))), resource);
    }
}
