//! Events have what the classes and objects of OCSF 1.5.0 require, and no attribute that they have not.

use super::*;
use crate::export::samples;

/// Attributes of an object: those required, those allowed besides, and a set of which one has to be there.
struct Rules {
    required: &'static [&'static str],
    allowed: &'static [&'static str],
    one_of: &'static [&'static str],
}

/// Of base_event with the profiles host and security_control.
const BASE: Rules = Rules {
    required: &["activity_id", "category_uid", "class_uid", "type_uid", "severity_id", "time", "metadata"],
    allowed: &[
        "activity_name",
        "category_name",
        "class_name",
        "type_name",
        "severity",
        "status_id",
        "status",
        "status_code",
        "status_detail",
        "message",
        "start_time",
        "end_time",
        "duration",
        "timezone_offset",
        "count",
        "unmapped",
        "actor",
        "action_id",
        "action",
        "disposition_id",
        "disposition",
        "is_alert",
        "firewall_rule",
    ],
    one_of: &[],
};

fn rules(object: &str) -> Rules {
    let (required, allowed, one_of): (&[&str], &[&str], &[&str]) = match object {
        "network" => (
            &[],
            &[
                "dst_endpoint",
                "src_endpoint",
                "connection_info",
                "traffic",
                "app_name",
                "tls",
                "ja4_fingerprint_list",
            ],
            &["dst_endpoint", "src_endpoint"],
        ),
        "http_activity" => {
            (&[], &["http_request", "http_response", "http_status"], &["http_request", "http_response"])
        }
        "dns_activity" => {
            (&[], &["query", "query_time", "response_time", "rcode", "rcode_id", "answers"], &[])
        }
        "api_activity" => (&["actor", "api", "src_endpoint"], &[], &[]),
        "metadata" => (
            &["product", "version"],
            &["profiles", "uid", "correlation_uid", "log_name", "event_code", "original_time"],
            &[],
        ),
        "product" => (&["vendor_name"], &["name", "version"], &[]),
        "actor" => {
            (&[], &["process", "user", "session", "app_name"], &["process", "user", "session", "app_name"])
        }
        "process" | "parent_process" => {
            (&[], &["pid", "name", "cmd_line", "file", "parent_process", "user"], &["pid"])
        }
        "user" => (&[], &["uid"], &["uid"]),
        "session" => (&[], &["uid"], &["uid"]),
        "file" => (&["name", "type_id"], &["path"], &[]),
        "firewall_rule" => (&[], &["name", "desc"], &["name"]),
        "dst_endpoint" | "src_endpoint" => {
            (&[], &["hostname", "ip", "port", "name", "uid"], &["ip", "uid", "name", "hostname"])
        }
        "connection_info" => (
            &["direction_id"],
            &["direction", "protocol_num", "protocol_name", "protocol_ver_id", "uid"],
            &[],
        ),
        "traffic" => (&[], &["bytes", "bytes_in", "bytes_out"], &[]),
        "tls" => (&["version"], &["cipher", "sni"], &[]),
        "ja4_fingerprint_list" => (&["type_id", "value"], &["type"], &[]),
        "http_request" => (
            &[],
            &["http_method", "url", "version", "user_agent", "referrer", "http_headers", "length"],
            &["http_method"],
        ),
        "http_response" => (&["code"], &["http_headers", "content_type", "latency", "length"], &[]),
        "http_headers" => (&["name", "value"], &[], &[]),
        "url" => (
            &[],
            &["url_string", "scheme", "hostname", "port", "path", "query_string"],
            &["url_string", "path"],
        ),
        "query" => (&["hostname"], &["type", "class", "opcode_id"], &[]),
        "answers" => (&["rdata"], &["type", "class"], &[]),
        "api" => (&["operation"], &[], &[]),
        _ => panic!("{object} is no object of these events"),
    };
    Rules { required, allowed, one_of }
}

fn check(name: &str, object: &Map<String, Value>, of: &[Rules]) {
    for rules in of {
        for required in rules.required {
            assert!(object.contains_key(*required), "{name} lacks {required}: {object:?}");
        }
        let one = rules.one_of.is_empty() || rules.one_of.iter().any(|name| object.contains_key(*name));
        assert!(one, "{name} has none of {:?}", rules.one_of);
    }
    for (attribute, value) in object {
        let known = |rules: &Rules| {
            rules.required.contains(&attribute.as_str()) || rules.allowed.contains(&attribute.as_str())
        };
        assert!(of.iter().any(known), "{name} has no {attribute}");
        if attribute == "unmapped" {
            continue;
        }
        match value {
            Value::Object(fields) => check(attribute, fields, &[rules(attribute)]),
            Value::Array(items) => {
                for item in items.iter().filter_map(Value::as_object) {
                    check(attribute, item, &[rules(attribute)]);
                }
            }
            Value::Null => panic!("{attribute} is null"),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

#[test]
fn every_kind_of_record_is_an_event_of_its_class() {
    for row in samples::all() {
        for bodies in [false, true] {
            let event = value(&row, bodies);
            let (class, of): (u64, &[&str]) = match row.record.kind {
                Kind::Exchange => (4002, &["network", "http_activity"]),
                Kind::Flow | Kind::Kernel => (4001, &["network"]),
                Kind::Dns => (4003, &["network", "dns_activity"]),
                Kind::Control | Kind::Guard => (6003, &["api_activity"]),
            };
            assert_eq!(event["class_uid"], class);
            assert_eq!(event["category_uid"], class / 1000);
            assert_eq!(
                event["type_uid"].as_u64().unwrap(),
                class * 100 + event["activity_id"].as_u64().unwrap()
            );
            assert_eq!(event["metadata"]["version"], VERSION);
            let of: Vec<Rules> = of.iter().map(|name| rules(name)).chain([BASE]).collect();
            check("event", event.as_object().unwrap(), &of);
            assert_eq!(event["time"].as_i64().unwrap(), row.record.started.0 / 1000, "milliseconds");
        }
    }
}

#[test]
fn what_matters_is_where_it_belongs() {
    let event = value(&samples::exchange(), false);
    assert_eq!(event["activity_id"], 6);
    assert_eq!(event["http_request"]["url"]["url_string"], "https://api.example.com/v1/messages?beta=true");
    assert_eq!(event["http_request"]["url"]["query_string"], "beta=true");
    assert_eq!(event["http_response"]["code"], 200);
    assert_eq!((&event["action_id"], &event["disposition_id"]), (&json!(1), &json!(1)));
    assert_eq!(event["actor"]["process"]["parent_process"]["pid"], 1);
    assert_eq!(event["connection_info"]["protocol_ver_id"], 4);
    let refused = value(&samples::refused(), false);
    assert_eq!((&refused["action_id"], &refused["disposition_id"]), (&json!(2), &json!(2)));
    assert_eq!((&refused["status_id"], &refused["severity_id"]), (&json!(2), &json!(4)));
    let asked = value(&samples::question(), false);
    assert_eq!((&asked["rcode_id"], &asked["query"]["hostname"]), (&json!(0), &json!("api.example.com")));
    assert_eq!(asked["answers"][0]["rdata"], "203.0.113.7");
    let with_facts = samples::all().into_iter().find(|row| !row.record.facts.is_empty()).unwrap();
    let facts = &value(&with_facts, false)["unmapped"]["facts"];
    assert_eq!((&facts["model"], &facts["tool"]), (&json!(["m-1"]), &json!(["search", "fetch"])));
}
