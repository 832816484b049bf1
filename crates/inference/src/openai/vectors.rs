//! What an answer with vectors says.

use serde_json::Value;

/// The vectors of an answer in the order of the texts, each of length 1; Err: what is wrong with it.
pub(super) fn vectors(
    answer: &Value,
    texts: usize,
    dimension: usize,
) -> Result<Vec<Vec<f32>>, String> {
    let data = answer["data"].as_array().ok_or("it has no field data")?;
    if data.len() != texts {
        return Err(format!("it has {} vectors for {texts} texts", data.len()));
    }
    let mut ordered = vec![Vec::new(); texts];
    for (position, item) in data.iter().enumerate() {
        let index = item["index"]
            .as_u64()
            .map_or(position, |index| index as usize);
        let vector = item["embedding"].as_array().ok_or("a vector is no list")?;
        if vector.len() != dimension {
            let found = vector.len();
            return Err(format!(
                "its vectors have {found} numbers and not {dimension}: set dimension to {found}, or name another model"
            ));
        }
        let place = ordered.get_mut(index).ok_or("an index is out of range")?;
        *place = unit(vector)?;
    }
    if ordered.iter().any(Vec::is_empty) {
        return Err("it has two vectors for one text".to_owned());
    }
    Ok(ordered)
}

fn unit(vector: &[Value]) -> Result<Vec<f32>, String> {
    let numbers: Option<Vec<f64>> = vector.iter().map(Value::as_f64).collect();
    let numbers = numbers.ok_or("a vector has something else than numbers")?;
    let square: f64 = numbers.iter().map(|n| n * n).sum();
    // Of one that is smaller too little is left to tell its direction.
    if !square.is_normal() {
        return Err("a vector has no length".to_owned());
    }
    let length = square.sqrt();
    Ok(numbers.iter().map(|n| (n / length) as f32).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn vectors_come_in_the_order_of_the_texts_and_are_checked() {
        let check = |data: Value, expected: Result<Vec<Vec<f32>>, &str>| {
            let found = vectors(&json!({"data": data}), 2, 2);
            match expected {
                Ok(vectors) => assert_eq!(found, Ok(vectors)),
                Err(part) => assert!(found.as_ref().is_err_and(|e| e.contains(part)), "{found:?}"),
            }
        };
        let item = |index: usize, vector: Value| json!({"index": index, "embedding": vector});
        let both = json!([item(1, json!([0, 2])), item(0, json!([3, 4]))]);
        check(both, Ok(vec![vec![0.6, 0.8], vec![0.0, 1.0]]));
        check(json!(null), Err("no field data"));
        check(
            json!([item(0, json!([1, 0]))]),
            Err("1 vectors for 2 texts"),
        );
        let with = |second: Value| json!([item(0, json!([1, 0])), second]);
        check(with(item(1, json!([1, 0, 0]))), Err("set dimension to 3"));
        check(with(item(0, json!([1, 0]))), Err("two vectors"));
        check(with(item(2, json!([1, 0]))), Err("out of range"));
        check(with(item(1, json!([0, 0]))), Err("no length"));
        check(with(item(1, json!([2e-162, 0]))), Err("no length"));
        check(with(item(1, json!([1e200, 0]))), Err("no length"));
        check(with(item(1, json!(["1", 0]))), Err("numbers"));
        check(with(item(1, json!("AAAA"))), Err("no list"));
    }
}
