//! The stack that a deployment makes of `template.yaml` with given parameters. This evaluates the functions that the
//! template uses.
//!
//! The result of `!Ref` on a resource is the resource's own name here, and the result of `!GetAtt` is `Name.Attribute`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json};
use serde_norway::Value;

use super::{at, template};

pub const REGION: &str = "us-east-1";
pub const ACCOUNT: &str = "123456789012";

/// The rights of a role: actions, each on a resource.
pub type Rights = BTreeSet<(String, String)>;

/// A stack of the template.
pub struct Stack {
    template: Value,
    parameters: BTreeMap<String, String>,
}

impl Stack {
    /// The stack with these parameters, and with the defaults of all others.
    pub fn with(parameters: &[(&str, &str)]) -> Self {
        let template = template();
        for (name, _) in parameters {
            at(&template, &format!("Parameters/{name}"));
        }
        // As without view definitions, which would be in the functions' packages.
        let tables = ("SourceTables", "public.users(id)");
        let given = std::iter::once(&tables).chain(parameters);
        let parameters = given.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { template, parameters }
    }

    /// Whether the stack has a resource.
    pub fn has(&self, resource: &str) -> bool {
        self.is_there(at(&self.template, &format!("Resources/{resource}")))
    }

    /// The properties of a resource; fails if the stack does not have it.
    pub fn properties(&self, resource: &str) -> Json {
        assert!(self.has(resource), "the stack has no {resource}");
        self.evaluated(at(&self.template, &format!("Resources/{resource}/Properties"))).expect("properties")
    }

    /// The names of the stack's resources.
    pub fn resources(&self) -> Vec<&str> {
        let resources = at(&self.template, "Resources").as_mapping().expect("resources");
        let names = resources.keys().map(|name| name.as_str().expect("a name"));
        names.filter(|name| self.has(name)).collect()
    }

    /// An output, if the stack has it.
    pub fn output(&self, output: &str) -> Option<String> {
        let output = at(&self.template, &format!("Outputs/{output}"));
        let value = self.is_there(output).then(|| self.evaluated(at(output, "Value")).expect("a value"))?;
        Some(value.as_str().expect("a text").to_owned())
    }

    /// The rights that a role allows.
    pub fn rights(&self, role: &str) -> Rights {
        let statements = self.statements(role);
        let of = |statement: &Json| {
            assert_eq!(statement["Effect"], "Allow");
            let (actions, resources) = (list(&statement["Action"]), list(&statement["Resource"]));
            assert!(!actions.iter().chain(&resources).any(|name| name == "*"), "{statement}");
            let pairs = actions.iter().flat_map(|action| resources.iter().map(|on| (action.clone(), on.clone())));
            pairs.collect::<Vec<_>>()
        };
        statements.iter().flat_map(of).collect()
    }

    /// The statements of a role's own policies, and of the template's that it has.
    pub fn statements(&self, role: &str) -> Vec<Json> {
        let properties = self.properties(role);
        // None of AWS's policies, which the template does not have.
        let managed = properties["ManagedPolicyArns"].as_array().into_iter().flatten();
        let managed = managed.map(|policy| self.properties(policy.as_str().expect("a policy of the template")));
        let policies = properties["Policies"].as_array().expect("policies").iter().cloned().chain(managed);
        policies.flat_map(|policy| policy["PolicyDocument"]["Statement"].as_array().unwrap().clone()).collect()
    }

    fn is_there(&self, part: &Value) -> bool {
        part.get("Condition").is_none_or(|condition| self.condition(condition.as_str().expect("a condition's name")))
    }

    fn condition(&self, name: &str) -> bool {
        let condition = self.evaluated(at(&self.template, &format!("Conditions/{name}")));
        condition.and_then(|condition| condition.as_bool()).unwrap_or_else(|| panic!("{name} is no condition"))
    }

    /// A value without the parts that `AWS::NoValue` removes.
    fn evaluated(&self, value: &Value) -> Option<Json> {
        Some(match value {
            Value::Tagged(call) => return self.called(&call.tag.to_string(), &call.value),
            Value::Mapping(members) => {
                let member = |(name, value): (&Value, &Value)| {
                    Some((name.as_str().expect("a name").to_owned(), self.evaluated(value)?))
                };
                members.iter().filter_map(member).collect::<Map<_, _>>().into()
            }
            Value::Sequence(values) => values.iter().filter_map(|value| self.evaluated(value)).collect(),
            plain => serde_json::to_value(plain).expect("a text, a number or a boolean"),
        })
    }

    fn called(&self, function: &str, argument: &Value) -> Option<Json> {
        let arguments = argument.as_sequence();
        let all = || arguments.expect("a list").iter().map(|value| self.evaluated(value).expect("a value"));
        let truth = |value: Json| value.as_bool().expect("a condition");
        Some(match function {
            "!Ref" => return self.reference(argument.as_str().expect("a name")),
            "!GetAtt" => {
                let name = argument.as_str().expect("a name");
                self.reference(name.split('.').next().expect("a resource"));
                name.into()
            }
            "!Sub" => self.substituted(argument).into(),
            "!Join" => {
                let [by, texts] = arguments.expect("a list").as_slice() else { panic!("two arguments") };
                list(&self.evaluated(texts).expect("texts")).join(by.as_str().expect("a text")).into()
            }
            "!Equals" => {
                let [one, other]: [Json; 2] = all().collect::<Vec<_>>().try_into().expect("two values");
                (one == other).into()
            }
            "!Not" => (!all().any(truth)).into(),
            "!Or" => all().any(truth).into(),
            "!And" => all().all(truth).into(),
            "!Condition" => self.condition(argument.as_str().expect("a condition's name")).into(),
            "!Split" => {
                let [by, text]: [Json; 2] = all().collect::<Vec<_>>().try_into().expect("two texts");
                text.as_str().expect("a text").split(by.as_str().expect("a text")).collect()
            }
            "!Select" => {
                let [place, list]: [Json; 2] = all().collect::<Vec<_>>().try_into().expect("a place and a list");
                let place = place.as_u64().and_then(|place| usize::try_from(place).ok()).expect("a place");
                list.get(place).expect("CloudFormation ends where a list is shorter").clone()
            }
            "!If" => {
                let [condition, yes, no] = arguments.expect("a list").as_slice() else { panic!("three arguments") };
                let holds = self.condition(condition.as_str().expect("a condition's name"));
                return self.evaluated(if holds { yes } else { no });
            }
            other => panic!("the template uses {other}, which is not known here"),
        })
    }

    fn reference(&self, name: &str) -> Option<Json> {
        Some(match name {
            "AWS::NoValue" => return None,
            "AWS::Region" => REGION.into(),
            "AWS::AccountId" => ACCOUNT.into(),
            "AWS::Partition" => "aws".into(),
            "AWS::StackName" => "dsql-view".into(),
            parameter if at(&self.template, "Parameters").get(parameter).is_some() => {
                if let Some(given) = self.parameters.get(parameter) {
                    return Some(given.as_str().into());
                }
                let default = at(&self.template, &format!("Parameters/{parameter}/Default"));
                serde_json::to_value(default).expect("a text or a number")
            }
            resource => {
                assert!(self.has(resource), "the stack refers to {resource}, which it does not have");
                resource.into()
            }
        })
    }

    /// The result of `!Sub`: of a text, or of a text with names that it defines itself.
    fn substituted(&self, argument: &Value) -> String {
        let (text, own) = match argument.as_sequence() {
            Some(both) => (&both[0], Some(&both[1])),
            None => (argument, None),
        };
        let mut parts = text.as_str().expect("a text").split("${");
        let mut result = parts.next().expect("a beginning").to_owned();
        for part in parts {
            let (name, rest) = part.split_once('}').expect("the end of a name");
            let value = match own.and_then(|own| own.get(name)) {
                Some(own) => self.evaluated(own),
                None if name.contains('.') => self.called("!GetAtt", &name.into()),
                None => self.reference(name),
            };
            match value {
                Some(Json::String(text)) => result.push_str(&text),
                Some(Json::Number(number)) => result.push_str(&number.to_string()),
                other => panic!("{name} is no text: {other:?}"),
            }
            result.push_str(rest);
        }
        result
    }
}

/// The texts of a value that is one text or a list of texts.
fn list(value: &Json) -> Vec<String> {
    let text = |value: &Json| value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned();
    value.as_array().map_or_else(|| vec![text(value)], |values| values.iter().map(text).collect())
}
