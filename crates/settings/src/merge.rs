//! Changes to the dynamic configuration, as PATCH /config makes them.

use serde_json::{Map, Value};

/// `config` with `patch` laid over it: a null removes its key, mappings are merged, anything else replaces. A value that
/// is equal as text is left as it is, so that `"5"` over `5` changes nothing.
#[must_use]
pub fn patch(config: &Value, patch: &Value) -> Value {
    let Value::Object(changes) = patch else { return patch.clone() };
    let mut merged = match config {
        Value::Object(config) => config.clone(),
        _ => Map::new(),
    };
    for (key, change) in changes {
        if change.is_null() {
            merged.shift_remove(key);
            continue;
        }
        let now = merged.get(key);
        let next = match (now, change) {
            (Some(now @ Value::Object(_)), Value::Object(_)) => self::patch(now, change),
            (_, Value::Object(_)) => self::patch(&Value::Null, change),
            (Some(now), _) if text(now) == text(change) => continue,
            _ => change.clone(),
        };
        merged.insert(key.clone(), next);
    }
    Value::Object(merged)
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What a new cluster writes to `/config`: `bootstrap.dcs` as given, failsafe mode unless it was switched off, and a ttl of 5, loop_wait of 1 and retry_timeout of 2
/// seconds when the operator named no ttl. Other timings that the operator did name are kept; if they do not fit into
/// 5 seconds, they were meant for Patroni's default of 30 and nothing is added.
#[must_use]
pub fn born_with_baton(bootstrap_dcs: &Value) -> Value {
    let mut config = match bootstrap_dcs {
        Value::Object(config) => config.clone(),
        _ => Map::new(),
    };
    // Losing etcd alone is no reason to lose the primary; an operator who thinks otherwise says so.
    config.entry("failsafe_mode").or_insert(Value::Bool(true));
    if config.get("ttl").is_some_and(|ttl| !ttl.is_null()) {
        return Value::Object(config);
    }
    let named = |key: &str, default: i64| match config.get(key) {
        None | Some(Value::Null) => Some(default),
        Some(value) => text(value).trim().parse::<i64>().ok(),
    };
    let fits = match (named("loop_wait", 1), named("retry_timeout", 2)) {
        (Some(loop_wait), Some(retry)) => retry.saturating_mul(2).saturating_add(loop_wait) <= 5,
        _ => false,
    };
    if fits {
        for (key, value) in [("ttl", 5), ("loop_wait", 1), ("retry_timeout", 2)] {
            if config.get(key).is_none_or(Value::is_null) {
                config.insert(key.to_owned(), Value::from(value));
            }
        }
    }
    Value::Object(config)
}

#[cfg(test)]
mod tests {
    use super::{born_with_baton, patch};
    use serde_json::json;

    #[test]
    fn a_patch_merges_and_removes() {
        let config = json!({"ttl": 30, "postgresql": {"parameters": {"a": 1, "b": 2}}, "pause": true});
        let change =
            json!({"pause": null, "postgresql": {"parameters": {"a": null, "c": "3"}}, "gone": null});
        assert_eq!(
            patch(&config, &change),
            json!({"ttl": 30, "postgresql": {"parameters": {"b": 2, "c": "3"}}})
        );
    }

    #[test]
    fn nulls_of_new_sections_do_not_stay() {
        assert_eq!(patch(&json!({}), &json!({"a": {"b": null, "c": 1}})), json!({"a": {"c": 1}}));
        assert_eq!(patch(&json!({"a": 5}), &json!({"a": {"b": 1}})), json!({"a": {"b": 1}}));
        assert_eq!(patch(&json!({"a": {"b": 1}}), &json!({"a": 5})), json!({"a": 5}));
    }

    #[test]
    fn equal_as_text_is_no_change() {
        assert_eq!(patch(&json!({"ttl": 30}), &json!({"ttl": "30"})), json!({"ttl": 30}));
        assert_eq!(patch(&json!({"ttl": 30}), &json!({"ttl": "31"})), json!({"ttl": "31"}));
    }

    #[test]
    fn only_a_cluster_without_a_ttl_gets_batons() {
        let born = json!({"failsafe_mode": true, "ttl": 5, "loop_wait": 1, "retry_timeout": 2});
        assert_eq!(born_with_baton(&json!({})), born);
        let given = json!({"ttl": 30, "failsafe_mode": false});
        assert_eq!(born_with_baton(&given), given);
        let half = json!({"loop_wait": 10, "failsafe_mode": true});
        assert_eq!(born_with_baton(&half), half);
        assert_eq!(born_with_baton(&json!({"retry_timeout": 1}))["ttl"], 5);
        assert_eq!(born_with_baton(&json!({"retry_timeout": 1}))["retry_timeout"], 1);
    }
}
