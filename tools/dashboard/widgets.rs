//! The dashboard as `template.yaml` has it.

use std::error::Error;

use serde_json::Value as Json;
use serde_norway::Value;

use crate::numbers::{Metric, Numbers};

/// The names that the run's functions, queue and stream have in place of the stack's.
pub const VIEW: &str = "dsql-view";
pub const REDRIVE: &str = "redrive";
pub const DEAD_LETTERS: &str = "dead";
pub const STREAM: &str = "dsql-cdc";

/// A place of the dashboard, which is 24 wide.
#[derive(Debug)]
pub struct Widget {
    pub place: (u32, u32),
    pub size: (u32, u32),
    pub title: String,
    pub shows: Shows,
}

#[derive(Debug)]
pub enum Shows {
    Curves { unit: String, stacked: bool, curves: Vec<Curve> },
    Alarms(Vec<String>),
}

/// The metrics that a curve shows.
#[derive(Debug)]
pub enum Curve {
    One {
        metric: Metric,
        statistic: String,
        label: String,
    },
    /// A search: one curve for each table.
    ByTable {
        name: String,
        statistic: String,
    },
}

pub fn template() -> Result<Value, Box<dyn Error>> {
    Ok(serde_norway::from_str(&std::fs::read_to_string("template.yaml")?)?)
}

/// The widgets of the template's dashboard.
pub fn read(template: &Value) -> Result<Vec<Widget>, Box<dyn Error>> {
    let Value::Tagged(body) = &template["Resources"]["Dashboard"]["Properties"]["DashboardBody"] else {
        return Err("template.yaml: expected DashboardBody to be a !Sub".into());
    };
    // The run has no change stream of Aurora DSQL, so it has neither its alarms nor its curves.
    let body = resolved(body.value[0].as_str().unwrap_or_default()).replace("${CdcAlarms}", "");
    let body: Json = serde_json::from_str(&body)?;
    let widgets = body["widgets"].as_array().ok_or("template.yaml: the dashboard has no widgets")?;
    // It has one view table, which has no metrics of its own.
    let is_empty = |widget: &&Json| {
        let metrics = widget["properties"]["metrics"].to_string();
        ["{AWS/AuroraDSQL,", ",ViewTable}"].iter().any(|of| metrics.contains(of))
    };
    Ok(widgets.iter().filter(|json| !is_empty(json)).map(widget).collect())
}

fn resolved(text: &str) -> String {
    let names = [
        ("${ViewFunction}", VIEW),
        ("${RedriveFunction}", REDRIVE),
        ("${DeadLetterQueue.QueueName}", DEAD_LETTERS),
        ("${ChangeStream}", STREAM),
    ];
    names.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

fn widget(json: &Json) -> Widget {
    let number = |name: &str| json[name].as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or_default();
    let properties = &json["properties"];
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let shows = match properties["alarms"].as_array() {
        Some(alarms) => {
            let name = |arn: &Json| text(arn).trim_start_matches("${").trim_end_matches(".Arn}").to_owned();
            Shows::Alarms(alarms.iter().map(name).collect())
        }
        None => Shows::Curves {
            unit: text(&properties["yAxis"]["left"]["label"]),
            stacked: properties["stacked"] == true,
            curves: properties["metrics"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|metric| curve(metric, &properties["stat"]))
                .collect(),
        },
    };
    Widget {
        place: (number("x"), number("y")),
        size: (number("width"), number("height")),
        title: text(&properties["title"]),
        shows,
    }
}

fn curve(metric: &Json, statistic: &Json) -> Curve {
    if let Some(search) = metric[0]["expression"].as_str() {
        let (_, name) = search.split_once("MetricName=\"").unwrap_or_default();
        let name = name.split('"').next().unwrap_or_default().to_owned();
        let statistic = search.split('\'').nth(3).unwrap_or_default().to_owned();
        return Curve::ByTable { name, statistic };
    }
    let text = |place: usize| metric[place].as_str().unwrap_or_default();
    let option = |name: &str| metric[4][name].as_str();
    Curve::One {
        metric: Metric::new(text(0), text(1), &[text(3)]),
        statistic: option("stat").or(statistic.as_str()).unwrap_or_default().to_owned(),
        label: option("label").unwrap_or(text(1)).to_owned(),
    }
}

/// Whether an alarm of the template would ring if the whole run were one of its periods. `None` if there are no
/// numbers.
pub fn rings(template: &Value, alarm: &str, numbers: &Numbers) -> Option<bool> {
    let properties = &template["Resources"][alarm]["Properties"];
    let text = |name: &str| properties[name].as_str().unwrap_or_default();
    let of = match &properties["Dimensions"][0]["Value"] {
        Value::Tagged(either) if either.tag == "!If" => &either.value[1],
        value => value,
    };
    let of = match of {
        Value::Tagged(named) => resolved(&format!("${{{}}}", named.value.as_str().unwrap_or_default())),
        _ => return None,
    };
    let metric = Metric::new(text("Namespace"), text("MetricName"), &[&of]);
    let statistic = properties.get("Statistic").or(properties.get("ExtendedStatistic"))?.as_str()?;
    let value = numbers.in_all(&metric, statistic)?;
    let threshold = match &properties["Threshold"] {
        Value::Tagged(named) => template["Parameters"][named.value.as_str()?]["Default"].as_f64()?,
        number => number.as_f64()?,
    };
    Some(match text("ComparisonOperator") {
        "GreaterThanThreshold" => value > threshold,
        "LessThanThreshold" => value < threshold,
        _ => value >= threshold,
    })
}
