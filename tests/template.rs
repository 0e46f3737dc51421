//! `template.yaml` sets what the code reads, reads the stream in the one way that loses nothing, and allows what the code does.

use std::collections::BTreeSet;

use dsql_view::config::VARIABLES;
use serde_norway::Value;

fn template() -> Value {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/template.yaml")).unwrap();
    serde_norway::from_str(&text).unwrap()
}

/// What stands at a path of names; fails where there is nothing.
fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('/').fold(value, |value, name| value.get(name).unwrap_or_else(|| panic!("no {name} of {path}")))
}

fn properties<'a>(template: &'a Value, resource: &str) -> &'a Value {
    at(template, &format!("Resources/{resource}/Properties"))
}

/// A value, or the default of the parameter that it refers to.
fn resolved<'a>(template: &'a Value, value: &'a Value) -> &'a Value {
    match value {
        Value::Tagged(tagged) if tagged.tag == "!Ref" => {
            at(template, &format!("Parameters/{}/Default", tagged.value.as_str().unwrap()))
        }
        other => other,
    }
}

fn texts(value: &Value) -> BTreeSet<&str> {
    match value {
        Value::Sequence(values) => values.iter().map(|value| value.as_str().unwrap()).collect(),
        other => BTreeSet::from([other.as_str().unwrap()]),
    }
}

#[test]
fn the_function_has_every_variable_that_the_code_reads_and_no_other() {
    let template = template();
    let variables = at(properties(&template, "ViewFunction"), "Environment/Variables").as_mapping().unwrap();
    let set: BTreeSet<&str> = variables.keys().map(|name| name.as_str().unwrap()).collect();
    // A test of the library's holds VARIABLES to what is read.
    assert_eq!(set, BTreeSet::from(VARIABLES));
}

#[test]
fn the_logs_have_lambda_s_format_and_level_which_the_function_follows() {
    let template = template();
    let logging = at(properties(&template, "ViewFunction"), "LoggingConfig");
    assert_eq!(logging["LogFormat"], "JSON");
    assert_eq!(resolved(&template, &logging["ApplicationLogLevel"]), "INFO");
    assert!(at(properties(&template, "FunctionLogs"), "RetentionInDays") != &Value::Null);
}

#[test]
fn the_defaults_of_the_settings_are_the_code_s() {
    let template = template();
    let variables = at(properties(&template, "ViewFunction"), "Environment/Variables");
    let default = |name: &str| match resolved(&template, &variables[name]) {
        Value::Number(number) => number.to_string(),
        text => text.as_str().unwrap().to_owned(),
    };
    let of = |defaults: bool| {
        let variable = |name: &str| match name {
            "VIEW_TABLE" => Some("view".to_owned()),
            "SOURCE_TABLES" => Some("users(id)".to_owned()),
            // The template makes a bucket of its own; without one there is none.
            "OBJECTS_BUCKET" => None,
            _ => defaults.then(|| default(name)),
        };
        format!("{:?}", dsql_view::config::Config::from_variables(variable).unwrap())
    };
    assert_eq!(of(true), of(false));
}

#[test]
fn the_stream_is_read_so_that_nothing_is_lost() {
    let template = template();
    let event = at(properties(&template, "ViewFunction"), "Events/Changes");
    assert_eq!(event["Type"], "Kinesis");
    let mapping = at(event, "Properties");
    // LATEST misses records while the mapping is created; without the response type Lambda ignores what is reported.
    assert_eq!(mapping["StartingPosition"], "TRIM_HORIZON");
    assert_eq!(texts(&mapping["FunctionResponseTypes"]), BTreeSet::from(["ReportBatchItemFailures"]));
    assert_eq!(mapping["BisectBatchOnFunctionError"], true);
    assert_eq!(at(mapping, "DestinationConfig/OnFailure/Type"), "SQS");
    // A filter would drop fragments, which carry no table, for good; a tumbling window is of another use.
    for absent in ["FilterCriteria", "TumblingWindowInSeconds"] {
        assert!(mapping.get(absent).is_none(), "{absent} is set");
    }
    // The ranges that Lambda's documentation gives; cfn-lint does not look at them on a SAM event.
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
fn the_role_allows_what_the_function_and_its_mapping_do_and_nothing_else() {
    let template = template();
    let mut allowed = BTreeSet::new();
    for policy in properties(&template, "FunctionRole")["Policies"].as_sequence().unwrap() {
        for statement in at(policy, "PolicyDocument/Statement").as_sequence().unwrap() {
            let statement = match statement {
                // An optional one, by !If: its condition, then the statement.
                Value::Tagged(optional) => &optional.value[1],
                always => always,
            };
            assert_eq!(statement["Effect"], "Allow");
            assert!(!matches!(&statement["Resource"], Value::String(text) if text == "*"), "a resource is not named");
            allowed.extend(texts(&statement["Action"]));
        }
    }
    let expected = [
        // The function.
        "dynamodb:DescribeTable",
        "dynamodb:PutItem",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "s3:PutObject",
        // Its event source mapping.
        "kinesis:DescribeStream",
        "kinesis:DescribeStreamSummary",
        "kinesis:GetRecords",
        "kinesis:GetShardIterator",
        "kinesis:ListShards",
        "kms:Decrypt",
        "sqs:SendMessage",
    ];
    assert_eq!(allowed, BTreeSet::from(expected));
    // With a role of the template's own, SAM attaches no managed policy.
    assert!(properties(&template, "ViewFunction").get("Role").is_some());
    assert!(properties(&template, "ViewFunction").get("Policies").is_none());
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
    // One partition key of type S, as the function wants it, and no name that a column is likely to have.
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
    for block in at(bucket, "PublicAccessBlockConfiguration").as_mapping().unwrap().values() {
        assert_eq!(block.as_bool(), Some(true));
    }
    let rules = at(bucket, "LifecycleConfiguration/Rules").as_sequence().unwrap();
    let quarantine = rules.iter().find(|rule| rule["Id"] == "quarantine").unwrap();
    assert_eq!(quarantine["Prefix"], "quarantine/");
    assert_eq!(resolved(&template, &quarantine["ExpirationInDays"]).as_i64(), Some(90));
    let statement = &at(properties(&template, "ObjectsBucketPolicy"), "PolicyDocument/Statement")[0];
    assert_eq!((&statement["Effect"], &statement["Action"]), (&"Deny".into(), &"s3:*".into()));
    assert_eq!(at(statement, "Condition/Bool/aws:SecureTransport"), "false");
}

#[test]
fn the_function_is_built_by_the_makefile_for_lambda_s_rust_runtime() {
    let template = template();
    let function = at(&template, "Resources/ViewFunction");
    assert_eq!(at(function, "Metadata/BuildMethod"), "makefile");
    let makefile = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Makefile")).unwrap();
    assert!(makefile.contains("\nbuild-ViewFunction:"), "sam build calls the target build-ViewFunction");
    let function = at(function, "Properties");
    assert_eq!(function["Runtime"], "provided.al2023");
    let architectures = function["Architectures"].as_sequence().unwrap();
    assert_eq!(resolved(&template, &architectures[0]), "arm64");
}

#[test]
fn every_parameter_says_what_it_is() {
    let template = template();
    for (name, parameter) in at(&template, "Parameters").as_mapping().unwrap() {
        let description = parameter.get("Description").and_then(Value::as_str).unwrap_or_default();
        assert!(description.len() > 4, "{name:?} has no description");
    }
}
