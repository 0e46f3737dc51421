//! The alarms and the dashboard of `template.yaml` watch metrics that exist, and docs/runbook.md has a section for each
//! alarm.

mod stack;

use std::collections::BTreeSet;

use dsql_view::observe::metrics::{FUNCTION, NAMESPACE, TABLE};
use dsql_view_support::pages::{metrics, metrics_by_view_table};
use serde_json::json;
use serde_norway::Value;
use stack::evaluated::Stack;
use stack::{at, named, number, properties, template};

const ALARMS: [&str; 15] = [
    "FreshnessAlarm",
    "IteratorAgeAlarm",
    "StreamUnreadAlarm",
    "CdcImpairedAlarm",
    "CdcLagAlarm",
    "FailedBatchesAlarm",
    "ViewErrorsAlarm",
    "ViewTableAlarm",
    "ThrottlingAlarm",
    "QuarantineAlarm",
    "DeadLetterQueueAlarm",
    "LostRecordsAlarm",
    "RedriveErrorsAlarm",
    "RedriveViewTableAlarm",
    "IncompleteSetsAlarm",
];

/// The second dimension of a view table's metrics.
const VIEW_TABLE: &str = "ViewTable";

/// The namespace of the service's own metrics on its change streams.
const DSQL: &str = "AWS/AuroraDSQL";

#[test]
fn the_alarms_watch_what_the_code_tells() {
    const AT_LEAST: &str = "GreaterThanOrEqualToThreshold";
    const MORE: &str = "GreaterThanThreshold";
    const LESS: &str = "LessThanThreshold";
    let template = template();
    let ours = NAMESPACE;
    let (view, redrive) = ("ViewFunction", "RedriveFunction");
    for (alarm, namespace, metric, of, statistic, period, periods, comparison, threshold) in [
        ("FreshnessAlarm", ours, "Freshness", view, "p99", 300, 3, MORE, 60_000),
        ("IteratorAgeAlarm", "AWS/Lambda", "IteratorAge", view, "Maximum", 300, 1, MORE, 300_000),
        ("StreamUnreadAlarm", "AWS/Kinesis", "GetRecords.Success", "ChangeStream", "Sum", 300, 3, LESS, 1),
        ("CdcImpairedAlarm", DSQL, "IsImpaired", "ClusterId", "Maximum", 300, 1, AT_LEAST, 1),
        ("CdcLagAlarm", DSQL, "BehindSourceLag", "ClusterId", "Average", 300, 3, MORE, 60_000),
        ("FailedBatchesAlarm", ours, "FailedBatches", view, "Sum", 900, 1, MORE, 10),
        ("ViewErrorsAlarm", "AWS/Lambda", "Errors", view, "Sum", 300, 1, AT_LEAST, 1),
        ("ThrottlingAlarm", ours, "Throttled", view, "Sum", 300, 3, MORE, 1_000),
        // The function looks twice within the period.
        ("QuarantineAlarm", ours, "QuarantinedObjects", redrive, "Maximum", 3600, 1, AT_LEAST, 1),
        (
            "DeadLetterQueueAlarm",
            "AWS/SQS",
            "ApproximateNumberOfMessagesVisible",
            "DeadLetterQueue.QueueName",
            "Maximum",
            300,
            1,
            AT_LEAST,
            1,
        ),
        ("LostRecordsAlarm", ours, "LostRanges", redrive, "Sum", 300, 1, AT_LEAST, 1),
        ("RedriveErrorsAlarm", "AWS/Lambda", "Errors", redrive, "Sum", 3600, 1, AT_LEAST, 1),
        ("IncompleteSetsAlarm", ours, "OldestIncompleteSet", redrive, "Maximum", 3600, 1, MORE, 21_600),
    ] {
        let properties = properties(&template, alarm);
        assert_eq!(
            (&properties["Namespace"], &properties["MetricName"]),
            (&namespace.into(), &metric.into()),
            "{alarm}"
        );
        let name = if statistic.starts_with('p') { "ExtendedStatistic" } else { "Statistic" };
        assert_eq!(properties[name], statistic, "{alarm}");
        assert_eq!(
            (&properties["Period"], &properties["EvaluationPeriods"]),
            (&period.into(), &periods.into()),
            "{alarm}"
        );
        assert_eq!(properties["ComparisonOperator"], comparison, "{alarm}");
        assert_eq!(number(&template, &properties["Threshold"]), threshold, "{alarm}");
        // Without activity there are no numbers. Without a reader, the number of reads is missing, and a failed change
        // stream sends no numbers at all.
        let missing = if comparison == LESS || metric == "IsImpaired" { "breaching" } else { "notBreaching" };
        assert_eq!(properties["TreatMissingData"], missing, "{alarm}");
        // Exactly the dimensions that the metric has: otherwise the alarm would see no data.
        let dimensions = properties["Dimensions"].as_sequence().unwrap();
        let dimension = match namespace {
            "AWS/SQS" => "QueueName",
            "AWS/Kinesis" => "StreamName",
            _ => FUNCTION,
        };
        let names: Vec<_> = dimensions.iter().map(|dimension| dimension["Name"].as_str().unwrap()).collect();
        assert_eq!(names, if namespace == DSQL { vec!["ClusterId", "StreamId"] } else { vec![dimension] }, "{alarm}");
        let value = match &dimensions[0]["Value"] {
            Value::Tagged(value) if value.tag == "!If" => &value.value[1],
            value => value,
        };
        assert_eq!(named(value), of, "{alarm}");
        // An alarm with a unit sees only numbers of that unit.
        if let Some(unit) = properties.get("Unit") {
            assert!(metrics().iter().any(|(name, of, _)| name == metric && unit.as_str().is_some_and(|unit| unit.to_lowercase() == *of)), "{alarm}");
        }
    }
    for alarm in ALARMS {
        let actions = properties(&template, alarm)["AlarmActions"].as_sequence().unwrap();
        let actions: Vec<_> = actions.iter().map(optional).collect();
        assert_eq!(actions, [("AlarmsHaveTopic", "AlarmTopicArn"), ("AlarmsHaveEmail", "AlarmTopic")], "{alarm}");
    }
}

#[test]
fn a_view_table_that_is_missing_or_denied_rings_by_its_name() {
    let stack = Stack::with(&[]);
    for (alarm, function) in [("ViewTableAlarm", "ViewFunction"), ("RedriveViewTableAlarm", "RedriveFunction")] {
        let alarm = stack.properties(alarm);
        // Exactly the dimensions that the metric has, and a series for each table.
        let query = format!(
            "SELECT SUM(UnavailableRecords) FROM SCHEMA(\"{NAMESPACE}\", {FUNCTION}, {VIEW_TABLE}) \
             WHERE {FUNCTION} = '{function}' GROUP BY {VIEW_TABLE} ORDER BY SUM() DESC"
        );
        let metrics = json!([{ "Id": "unavailable", "Expression": query, "Period": 300, "ReturnData": true }]);
        assert_eq!(alarm["Metrics"], metrics);
        assert_eq!((&alarm["Threshold"], &alarm["EvaluationPeriods"]), (&json!(1), &json!(1)));
        assert_eq!(alarm["ComparisonOperator"], "GreaterThanOrEqualToThreshold");
        assert_eq!(alarm["TreatMissingData"], "notBreaching");
        // An alarm has either a metric of its own or a query.
        assert!(["Namespace", "MetricName", "Dimensions", "Period"].iter().all(|name| alarm[name].is_null()));
    }
    assert!(metrics_by_view_table().iter().any(|(name, _)| name == "UnavailableRecords"));
}

/// A value that is there only under a condition: the condition, and the name that the value refers to.
fn optional(value: &Value) -> (&str, &str) {
    let Value::Tagged(value) = value else { panic!("stands there always: {value:?}") };
    assert_eq!((value.tag == "!If", named(&value.value[2])), (true, "AWS::NoValue"));
    (value.value[0].as_str().unwrap(), named(&value.value[1]))
}

#[test]
fn alarms_tell_whom_they_are_given_and_nobody_else() {
    let template = template();
    for (condition, parameter) in [("AlarmsHaveTopic", "AlarmTopicArn"), ("AlarmsHaveEmail", "AlarmEmail")] {
        assert_eq!(at(&template, &format!("Parameters/{parameter}/Default")), "");
        let Value::Tagged(not) = at(&template, &format!("Conditions/{condition}")) else { panic!("{condition}") };
        let Value::Tagged(equals) = &not.value[0] else { panic!("{condition}") };
        assert_eq!((not.tag == "!Not", equals.tag == "!Equals"), (true, true));
        assert_eq!((named(&equals.value[0]), &equals.value[1]), (parameter, &"".into()));
    }
    let topic = at(&template, "Resources/AlarmTopic");
    assert_eq!(topic["Condition"], "AlarmsHaveEmail");
    let subscription = &at(topic, "Properties/Subscription")[0];
    assert_eq!((&subscription["Protocol"], named(&subscription["Endpoint"])), (&"email".into(), "AlarmEmail"));
}

#[test]
fn each_alarm_has_its_section_in_the_runbook_and_names_it() {
    let template = template();
    let is_alarm = |(_, resource): &(&Value, &Value)| resource["Type"] == "AWS::CloudWatch::Alarm";
    let resources = at(&template, "Resources").as_mapping().unwrap();
    let alarms: Vec<&str> = resources.iter().filter(is_alarm).map(|(name, _)| name.as_str().unwrap()).collect();
    assert_eq!(alarms, ALARMS);

    let root = env!("CARGO_MANIFEST_DIR");
    let runbook = std::fs::read_to_string(format!("{root}/docs/runbook.md")).unwrap();
    let sections: Vec<(&str, &str)> =
        runbook.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap()).collect();
    let (alarms, others) = sections.split_at(ALARMS.len().min(sections.len()));
    assert_eq!(alarms.iter().map(|(title, _)| *title).collect::<Vec<_>>(), ALARMS);
    assert_eq!(others.iter().map(|(title, _)| *title).collect::<Vec<_>>(), ["Warnings without an alarm"]);
    for (alarm, section) in alarms {
        assert!(section.contains("```sh\n"), "nothing to type for {alarm}");
        let description = at(properties(&template, alarm), "AlarmDescription").as_str().unwrap();
        assert!(description.ends_with(&format!("What to do: docs/runbook.md, {alarm}.")), "{description}");
        assert!(description.len() <= 1024, "{alarm}");
    }
    for link in runbook.split("](#").skip(1).map(|link| link.split(')').next().unwrap()) {
        assert!(ALARMS.iter().any(|alarm| alarm.to_lowercase() == link), "the runbook links to {link}");
    }
    let outputs = at(&template, "Outputs");
    let upgrading = std::fs::read_to_string(format!("{root}/docs/upgrading.md")).unwrap();
    let both = format!("{runbook}{upgrading}");
    for output in both.split("$(output ").skip(1).map(|output| output.split(')').next().unwrap()) {
        assert!(outputs.get(output).is_some(), "a page asks for the output {output}");
    }
    assert!(std::fs::read_to_string(format!("{root}/README.md")).unwrap().contains("](docs/runbook.md)"));
}

/// The widgets of the dashboard, with all optional parameters set.
fn widgets() -> Vec<serde_json::Value> {
    let id = "2ntttwpyh6nbmi5h54h2e4p4ja";
    let body = Stack::with(&[("ClusterId", id), ("CdcStreamId", id)]).properties("Dashboard")["DashboardBody"].take();
    let body: serde_json::Value = serde_json::from_str(body.as_str().unwrap()).unwrap();
    body["widgets"].as_array().unwrap().clone()
}

#[test]
fn the_dashboard_shows_metrics_that_are_there() {
    let template = template();
    let widgets = widgets();
    let mut shown = BTreeSet::new();
    for widget in &widgets {
        assert!(widget["x"].as_u64().unwrap() + widget["width"].as_u64().unwrap() <= 24);
        for metric in widget["properties"]["metrics"].as_array().into_iter().flatten() {
            if let Some(expression) = metric[0]["expression"].as_str() {
                if let Some(search) =
                    expression.strip_prefix("SEARCH('{AWS/AuroraDSQL,ClusterId,StreamId} MetricName=\"")
                {
                    shown.insert(search.split('"').next().unwrap().to_owned());
                    continue;
                }
                // SEARCH needs quotation marks around a name with a hyphen.
                let has = |second: &str| expression.contains(&format!(r#"{{"{NAMESPACE}",{FUNCTION},{second}}}"#));
                let (_, name) = expression.split_once("MetricName=\"").unwrap();
                let name = name.split('"').next().unwrap();
                let is_there = if has(VIEW_TABLE) {
                    metrics_by_view_table().iter().any(|(metric, _)| metric == name)
                } else {
                    has(TABLE) && metrics().iter().any(|(metric, _, by_table)| metric == name && *by_table)
                };
                assert!(is_there, "{expression}");
                shown.insert(name.to_owned());
                continue;
            }
            let text = |place: usize| metric[place].as_str().unwrap();
            if text(0) == NAMESPACE {
                assert!(metrics().iter().any(|(name, _, _)| name == text(1)), "{metric}");
                assert_eq!(text(2), FUNCTION);
            }
            let resource = text(3).split('.').next().unwrap();
            assert!(at(&template, "Resources").get(resource).is_some(), "{metric}");
            shown.insert(text(1).to_owned());
        }
    }
    for metric in ["Freshness", "IteratorAge", "Applied", "Superseded", "Quarantined", "Failed"] {
        assert!(shown.contains(metric), "{metric} is not on the dashboard");
    }
    let alarms = widgets.iter().find(|widget| widget["type"] == "alarm").expect("the alarms");
    let alarms: Vec<&str> =
        alarms["properties"]["alarms"].as_array().unwrap().iter().map(|arn| arn.as_str().unwrap()).collect();
    assert_eq!(alarms, ALARMS.map(|alarm| format!("{alarm}.Arn")));
    // The dashboard shows each metric that an alarm watches, except three.
    for alarm in ALARMS {
        let metric = properties(&template, alarm)
            .get("MetricName")
            .map_or("UnavailableRecords", |metric| metric.as_str().unwrap());
        let is_shown =
            shown.contains(metric) || matches!(metric, "Errors" | "OldestIncompleteSet" | "GetRecords.Success");
        assert!(is_shown, "{alarm} watches {metric}");
    }
}
