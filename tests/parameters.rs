//! The parts of `template.yaml` that depend on its optional parameters: the stream and the role in front of the
//! function, more view tables behind it, and keys of your own.

mod stack;

use std::collections::{BTreeMap, BTreeSet};

use dsql_view_support::kinesis::STREAM;
use serde_json::{Value as Json, json};
use stack::evaluated::{ACCOUNT, REGION, Stack};

const CLUSTER: &str = "2ntttwpyh6nbmi5h54h2e4p4ja";
const KEY: &str = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555";

/// The stream that each of its readers names: the mapping and the roles must name the one that exists.
fn readers(stack: &Stack) -> Vec<Json> {
    let mut named = vec![stack.properties("ViewFunction")["Events"]["Changes"]["Properties"]["Stream"].clone()];
    for role in ["FunctionRole", "RedriveRole"] {
        let reads = |statement: &&Json| statement["Action"].to_string().contains("kinesis:GetRecords");
        named.extend(stack.statements(role).iter().filter(reads).map(|statement| statement["Resource"].clone()));
    }
    assert_eq!(named.len(), 3);
    named
}

/// The name of the stream that the alarm on missing readers watches.
fn watched(stack: &Stack) -> Json {
    stack.properties("StreamUnreadAlarm")["Dimensions"][0]["Value"].clone()
}

#[test]
fn the_stream_is_made_where_none_is_named() {
    let given = Stack::with(&[("StreamArn", STREAM)]);
    assert!(!given.has("ChangeStream"));
    assert!(readers(&given).iter().all(|stream| stream == STREAM));
    assert_eq!(watched(&given), "dsql-cdc");
    assert_eq!(given.output("ChangeStreamArn").as_deref(), Some(STREAM));

    for (key, expected) in [("", "alias/aws/kinesis"), (KEY, KEY)] {
        let made = Stack::with(&[("StreamKeyArn", key), ("StreamRetentionHours", "48")]);
        let expected = json!({
            "StreamModeDetails": { "StreamMode": "ON_DEMAND" },
            "MaxRecordSizeInKiB": 10_240,
            "RetentionPeriodHours": "48",
            "StreamEncryption": { "EncryptionType": "KMS", "KeyId": expected },
        });
        assert_eq!(made.properties("ChangeStream"), expected);
        assert!(readers(&made).iter().all(|stream| stream == "ChangeStream.Arn"));
        assert_eq!(watched(&made), "ChangeStream");
        assert_eq!(made.output("ChangeStreamArn").as_deref(), Some("ChangeStream.Arn"));
    }
}

#[test]
fn the_stream_and_its_role_outlive_the_stack() {
    let template = stack::template();
    for resource in ["ChangeStream", "CdcRole"] {
        let resource = stack::at(&template, &format!("Resources/{resource}"));
        // A stream costs money by the hour, so a failed deployment does not leave its stream behind.
        assert_eq!(
            (&resource["DeletionPolicy"], &resource["UpdateReplacePolicy"]),
            (&"RetainExceptOnCreate".into(), &"Retain".into())
        );
    }
}

/// A document that a function of scripts/cdc-pipeline writes, with these values of its variables.
fn of_script(function: &str, variables: &[(&str, &str)]) -> Json {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/cdc-pipeline");
    let script = std::fs::read_to_string(script).unwrap();
    let (_, body) = script.split_once(&format!("\n{function}() {{\n")).expect("the function");
    let (_, body) = body.split_once("<<JSON\n").expect("a document");
    let (body, _) = body.split_once("\nJSON\n").expect("its end");
    let mut document = body.to_owned();
    for (name, value) in variables {
        document = document.replace(&format!("${name}"), value);
    }
    serde_json::from_str(&document.replace("\\$", "$")).unwrap()
}

#[test]
fn the_role_of_the_capture_is_the_one_that_cdc_create_makes() {
    for (parameter, stream) in [("", "ChangeStream.Arn"), (STREAM, STREAM)] {
        let stack = Stack::with(&[("StreamArn", parameter), ("ClusterId", CLUSTER)]);
        let role = stack.properties("CdcRole");
        let sources = format!("arn:aws:dsql:{REGION}:{ACCOUNT}:cluster/{CLUSTER}/stream/*");
        let variables = [
            ("cluster_account", ACCOUNT),
            ("stream_sources", sources.as_str()),
            ("stream_arn", stream),
            ("cluster_partition", "aws"),
            ("region", REGION),
        ];
        assert_eq!(role["AssumeRolePolicyDocument"], of_script("wanted_trust", &variables));
        let policies = role["Policies"].as_array().unwrap();
        assert_eq!((policies.len(), &policies[0]["PolicyName"]), (1, &json!("dsql-view-cdc")));
        assert_eq!(policies[0]["PolicyDocument"], of_script("wanted_policy", &variables));
        let elsewhere = of_script("wanted_policy", &[("cluster_partition", "aws-us-gov")]);
        assert_eq!(elsewhere["Statement"][1]["Resource"], "arn:aws-us-gov:kms:*:*:key/*");
        assert!(role["ManagedPolicyArns"].is_null());
    }
    assert!(!Stack::with(&[("StreamArn", STREAM)]).has("CdcRole"));
}

#[test]
fn a_cluster_is_named_without_a_role_where_cdc_create_has_made_it() {
    let given = [("StreamArn", STREAM), ("ClusterId", CLUSTER)];
    // Without the parameter, a stack keeps its role, as before the parameter existed.
    assert!(Stack::with(&given).has("CdcRole"));
    let without = Stack::with(&[given[0], given[1], ("MakeCdcRole", "false")]);
    assert!(!without.has("CdcRole"));
    assert_eq!((without.output("CreateStreamCommand"), without.output("CdcRoleArn")), (None, None));
    for function in ["ViewFunction", "RedriveFunction"] {
        assert_eq!(without.properties(function)["Environment"]["Variables"]["SOURCE_CLUSTER"], CLUSTER);
    }
    // Without a cluster there is no role.
    assert!(!Stack::with(&[("MakeCdcRole", "true")]).has("CdcRole"));
}

#[test]
fn the_change_stream_has_alarms_where_it_is_known() {
    const CHANGE_STREAM: &str = "fntuauzlakwytxknp2k6acrxk4";
    let alarms = ["CdcImpairedAlarm", "CdcLagAlarm"];
    let both = [("ClusterId", CLUSTER), ("CdcStreamId", CHANGE_STREAM)];
    let known = Stack::with(&both);
    for alarm in alarms {
        let expected =
            json!([{ "Name": "ClusterId", "Value": CLUSTER }, { "Name": "StreamId", "Value": CHANGE_STREAM }]);
        assert_eq!(known.properties(alarm)["Dimensions"], expected, "{alarm}");
    }
    // An alarm without one of its dimensions would see no data, and ring forever.
    for unknown in [&both[..1], &both[1..], &[]] {
        assert!(alarms.iter().all(|alarm| !Stack::with(unknown).has(alarm)), "{unknown:?}");
    }
    // The dashboard is valid JSON in each case.
    for parameters in [&both[..], &both[..1], &[]] {
        let stack = Stack::with(parameters);
        let dashboard = stack.properties("Dashboard")["DashboardBody"].as_str().unwrap().to_owned();
        let body: Json = serde_json::from_str(&dashboard).unwrap();
        let widgets = body["widgets"].as_array().unwrap();
        let shown: Vec<&Json> =
            widgets.iter().filter_map(|widget| widget["properties"]["alarms"].as_array()).flatten().collect();
        let all: Vec<_> = stack
            .resources()
            .into_iter()
            .filter(|name| name.ends_with("Alarm"))
            .map(|name| json!(format!("{name}.Arn")))
            .collect();
        assert_eq!(shown, all.iter().collect::<Vec<_>>());
        // It shows this cluster alone, if the cluster is known.
        let of_cluster = dashboard.matches(&format!(r#"ClusterId=\"{CLUSTER}\""#)).count();
        assert_eq!(of_cluster, if parameters.is_empty() { 0 } else { 2 });
    }
}

#[test]
fn the_outputs_say_what_to_type_for_the_change_stream() {
    let stack = Stack::with(&[("ClusterId", CLUSTER)]);
    let expected = format!(
        "aws dsql create-stream --region {REGION} --cluster-identifier {CLUSTER} --ordering UNORDERED --format JSON \
         --target-definition '{{\"kinesis\":{{\"streamArn\":\"ChangeStream.Arn\",\"roleArn\":\"CdcRole.Arn\"}}}}'"
    );
    assert_eq!(stack.output("CreateStreamCommand").as_deref(), Some(expected.as_str()));
    assert_eq!(stack.output("CdcRoleArn").as_deref(), Some("CdcRole.Arn"));
    let given = Stack::with(&[("ClusterId", CLUSTER), ("StreamArn", STREAM)]);
    assert!(given.output("CreateStreamCommand").unwrap().contains(&format!("\"streamArn\":\"{STREAM}\"")));
    let without = Stack::with(&[]);
    assert_eq!((without.output("CreateStreamCommand"), without.output("CdcRoleArn")), (None, None));
}

/// The view tables that the functions know by a name, and those that each role may write, with `BatchedCreates` or not.
fn view_tables(made: &str, own: &str) -> (String, Vec<String>) {
    const RIGHTS: [&str; 4] = ["DescribeTable", "DescribeTimeToLive", "PutItem", "Scan"];
    let mut found = Vec::new();
    for batched in ["false", "true"] {
        let stack = Stack::with(&[("MakeViewTables", made), ("ViewTables", own), ("BatchedCreates", batched)]);
        for (function, role) in [("ViewFunction", "FunctionRole"), ("RedriveFunction", "RedriveRole")] {
            let mut rights = BTreeMap::<String, BTreeSet<String>>::new();
            for (action, on) in stack.rights(role) {
                if let Some(action) = action.strip_prefix("dynamodb:") {
                    rights.entry(on).or_default().insert(action.to_owned());
                }
            }
            let batched = (batched == "true").then_some("PartiQLInsert");
            let expected: BTreeSet<_> = RIGHTS.into_iter().chain(batched).map(str::to_owned).collect();
            assert!(rights.values().all(|rights| *rights == expected), "{rights:?}");
            let names = &stack.properties(function)["Environment"]["Variables"]["VIEW_TABLES"];
            found.push((names.as_str().unwrap().to_owned(), rights.into_keys().collect()));
        }
    }
    found.dedup();
    assert_eq!(found.len(), 1, "both functions write the same tables: {found:?}");
    found.remove(0)
}

#[test]
fn the_functions_may_write_exactly_the_view_tables_that_they_know() {
    const VIEW: &str = "ViewTable.Arn";
    let own = |table: &str| format!("arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{table}");
    assert_eq!(view_tables("", ""), (String::new(), vec![VIEW.to_owned()]));
    let all = ["MadeTable1.Arn", "MadeTable2.Arn", VIEW].map(str::to_owned);
    assert_eq!(view_tables("orders,items", ""), ("orders=MadeTable1,items=MadeTable2".to_owned(), all.to_vec()));
    // A name keeps its table when another leaves the list.
    assert_eq!(view_tables(",items", ""), ("items=MadeTable2".to_owned(), all[1..].to_vec()));
    let mut both = vec![all[0].clone(), VIEW.to_owned(), own("Shop.Items-1"), own("s_o")];
    assert_eq!(
        view_tables("orders", "items=Shop.Items-1,stock=s_o"),
        ("items=Shop.Items-1,stock=s_o,orders=MadeTable1".to_owned(), both.clone())
    );
    both.remove(0);
    let (pairs, tables): (Vec<_>, Vec<_>) = (0..10).map(|n| (format!("n{n}=t-{n}"), own(&format!("t-{n}")))).unzip();
    let expected = [vec![VIEW.to_owned()], tables].concat();
    assert_eq!(view_tables("", &pairs.join(",")), (pairs.join(","), expected));
    let (made, _) = view_tables("a,b,c,d,e", "");
    assert_eq!(made, "a=MadeTable1,b=MadeTable2,c=MadeTable3,d=MadeTable4,e=MadeTable5");
}

#[test]
fn a_table_that_is_made_has_its_name_keys_and_care() {
    for (key, sse) in [
        ("", json!({ "SSEEnabled": true, "SSEType": "KMS" })),
        (KEY, json!({ "SSEEnabled": true, "SSEType": "KMS", "KMSMasterKeyId": KEY })),
    ] {
        let stack = Stack::with(&[("MakeViewTables", "a,b,c,d,e"), ("ViewKeyArn", key)]);
        let text = |name: &str| json!({ "AttributeName": name, "AttributeType": "S" });
        let schema = |hash: &str, range: &str| json!([{ "AttributeName": hash, "KeyType": "HASH" }, { "AttributeName": range, "KeyType": "RANGE" }]);
        for (place, name) in (1..=5).zip(["a", "b", "c", "d", "e"]) {
            let expected = json!({
                "TableName": format!("dsql-view-{name}"),
                "BillingMode": "PAY_PER_REQUEST",
                "AttributeDefinitions": [text("pk"), text("sk"), text("GSI1PK"), text("GSI1SK")],
                "KeySchema": schema("pk", "sk"),
                "GlobalSecondaryIndexes": [{
                    "IndexName": "GSI1",
                    "KeySchema": schema("GSI1PK", "GSI1SK"),
                    "Projection": { "ProjectionType": "ALL" },
                }],
                "TimeToLiveSpecification": { "AttributeName": "_expires_at", "Enabled": true },
                "PointInTimeRecoverySpecification": { "PointInTimeRecoveryEnabled": true },
                "SSESpecification": sse,
            });
            assert_eq!(stack.properties(&format!("MadeTable{place}")), expected);
            let template = stack::template();
            let table = stack::at(&template, &format!("Resources/MadeTable{place}"));
            let policies = (&table["DeletionPolicy"], &table["UpdateReplacePolicy"]);
            assert_eq!(policies, (&"RetainExceptOnCreate".into(), &"Retain".into()));
        }
    }
}

#[test]
fn names_of_view_tables_are_taken_that_the_template_can_read() {
    let template = stack::template();
    for (parameter, taken, refused) in [
        (
            "MakeViewTables",
            ["", "orders", ",items", "a,b,c,d,e"].as_slice(),
            ["a, b", "a,b,c,d,e,f", "a=b", "ä"].as_slice(),
        ),
        (
            "ViewTables",
            &["", "orders=shop-orders", "a=b.b,c=d_d,e=fff,g=hhh,i=jjj,k=lll,m=nnn,o=ppp,q=rrr,s=ttt"],
            &[
                "orders",
                "orders=no",
                "a=bbb, c=ddd",
                "a=bbb=ccc",
                "a=bbb,",
                "a=bbb,c=ddd,e=fff,g=hhh,i=jjj,k=lll,m=nnn,o=ppp,q=rrr,s=ttt,u=vvv",
            ],
        ),
        ("SourceTables", &["", "users(id)"], &["users", "users(id), orders"]),
        (
            "HashSecretArn",
            &["", "arn:aws:secretsmanager:us-east-1:123456789012:secret:a/b_c-AbCdEf"],
            &["a/b_c", "arn:aws:secretsmanager:us-east-1:123456789012:secret:*"],
        ),
    ] {
        let pattern = stack::at(&template, &format!("Parameters/{parameter}/AllowedPattern")).as_str().unwrap();
        let takes = regex::Regex::new(&format!("^(?:{pattern})$")).unwrap();
        assert!(taken.iter().all(|text| takes.is_match(text)), "{parameter} does not take one of {taken:?}");
        assert!(!refused.iter().any(|text| takes.is_match(text)), "{parameter} takes one of {refused:?}");
    }
}

#[test]
fn what_holds_data_is_encrypted_with_the_key_that_is_given() {
    let parameters = ["ViewKeyArn", "ObjectsKeyArn", "QueuesKeyArn", "LogsKeyArn"].map(|name| (name, KEY));
    let (plain, keyed) = (Stack::with(&[]), Stack::with(&parameters));
    for (resource, property, without, with) in [
        (
            "ViewTable",
            "SSESpecification",
            json!({ "SSEEnabled": true, "SSEType": "KMS" }),
            json!({ "SSEEnabled": true, "SSEType": "KMS", "KMSMasterKeyId": KEY }),
        ),
        (
            "ObjectsBucket",
            "BucketEncryption",
            json!({ "ServerSideEncryptionConfiguration": [
                { "ServerSideEncryptionByDefault": { "SSEAlgorithm": "AES256" } },
            ] }),
            json!({ "ServerSideEncryptionConfiguration": [{
                "ServerSideEncryptionByDefault": { "SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY },
                "BucketKeyEnabled": true,
            }] }),
        ),
        ("OnFailureQueue", "SqsManagedSseEnabled", json!(true), Json::Null),
        ("OnFailureQueue", "KmsMasterKeyId", Json::Null, json!(KEY)),
        ("DeadLetterQueue", "SqsManagedSseEnabled", json!(true), Json::Null),
        ("DeadLetterQueue", "KmsMasterKeyId", Json::Null, json!(KEY)),
        ("FunctionLogs", "KmsKeyId", Json::Null, json!(KEY)),
        ("RedriveLogs", "KmsKeyId", Json::Null, json!(KEY)),
    ] {
        assert_eq!(plain.properties(resource)[property], without, "{resource}");
        assert_eq!(keyed.properties(resource)[property], with, "{resource}");
    }
}

#[test]
fn the_settings_of_the_functions_are_the_parameters() {
    let secret = "arn:aws:secretsmanager:us-east-1:123456789012:secret:hash-AbCdEf";
    let parameters = [
        ("SourceTables", "users(id)"),
        ("ViewDefinitions", "views/shop.toml"),
        ("ViewTables", "orders=shop-orders"),
        ("HashSecretArn", secret),
        ("CommitTimestamp", "root"),
        ("ClusterId", CLUSTER),
        ("StreamRetentionHours", "48"),
        ("TombstoneTtl", "30d"),
        ("WriteConcurrency", "7"),
        ("BatchedCreates", "true"),
        ("TableMetrics", "false"),
    ];
    let stack = Stack::with(&parameters);
    let expected = json!({
        "VIEW_TABLE": "ViewTable",
        "VIEW_TABLES": "orders=shop-orders",
        "VIEW_DEFINITIONS": "views/shop.toml",
        "VIEW_HASH_SECRET": secret,
        "OBJECTS_BUCKET": "ObjectsBucket",
        "SOURCE_TABLES": "users(id)",
        "COMMIT_TIMESTAMP": "root",
        "SOURCE_CLUSTER": CLUSTER,
        "TOMBSTONE_TTL": "30d",
        "STREAM_RETENTION": "48h",
        "WRITE_CONCURRENCY": "7",
        "BATCHED_CREATES": "true",
        "TABLE_METRICS": "false",
    });
    for function in ["ViewFunction", "RedriveFunction"] {
        assert_eq!(stack.properties(function)["Environment"]["Variables"], expected);
    }
}

#[test]
fn names_of_tables_reach_the_functions_whatever_they_are_made_of() {
    let tables = [
        r#""Sales"."Order Lines"("Order Id")"#,
        r#"public."back\slash"(id), public."a ""quoted"" name"(id)"#,
        "public.users(id),\n\tpublic.orders(id)\r\n",
        r#"public."${AWS::Region} {{resolve:ssm:x}} \n"("$1", "%s", "ü😀")"#,
    ];
    let parameter = stack::at(&stack::template(), "Parameters/SourceTables").clone();
    let taken = regex::Regex::new(&format!("^(?:{})$", parameter["AllowedPattern"].as_str().unwrap())).unwrap();
    let plain = Stack::with(&[]);
    for tables in tables {
        assert!(taken.is_match(tables), "{tables:?} is not taken");
        let stack = Stack::with(&[("SourceTables", tables)]);
        for resource in stack.resources() {
            let (mut properties, mut without) = (stack.properties(resource), plain.properties(resource));
            if ["ViewFunction", "RedriveFunction"].contains(&resource) {
                let variable = |properties: &mut Json| properties["Environment"]["Variables"]["SOURCE_TABLES"].take();
                assert_eq!(variable(&mut properties), tables);
                variable(&mut without);
            }
            // The setting is nowhere else, for example in a text that it could break.
            assert_eq!(properties, without, "{resource} with {tables:?}");
        }
    }
}
