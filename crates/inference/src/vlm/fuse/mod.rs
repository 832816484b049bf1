//! Vision encoders, before ONNX Runtime sees them: what its optimiser leaves apart becomes one node each.
//!
//! Exports of SigLIP (SmolVLM's encoder) spell out attention and the tanh approximation of GELU. On a CPU every step of
//! these reads and writes tens of megabytes: as `MultiHeadAttention` and `FastGelu` of `com.microsoft` (ONNX Runtime's
//! contrib operators, docs/ContribOperators.md there) they do it once. What is not exactly such a pattern stays.

mod wire;

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use prost::Message;

use wire::{Attribute, Model, Node, OperatorSet, Tensor};

const DOMAIN: &str = "com.microsoft";
/// Of GELU by tanh: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
const CUBIC: f32 = 0.044_715;
const INNER: f32 = 0.797_884_6;

/// The model with its patterns fused; nothing where none was found, or where it is not a model that this reads. The
/// encoder must be given whole pictures: a mask that hides part of one is no longer looked at.
pub(super) fn fused(model: Bytes) -> Option<Vec<u8>> {
    let mut model = Model::decode(model).ok()?;
    let graph = model.graph.as_mut()?;
    let tensors: Option<Vec<_>> = graph.initializers.iter().map(tensor).collect();
    let tensors = tensors?;
    if tensors.iter().any(Tensor::is_half_or_elsewhere) {
        return None;
    }
    let replaced = Patterns::of(&graph.nodes, &tensors).found();
    if replaced.is_empty() {
        return None;
    }
    let nodes = std::mem::take(&mut graph.nodes);
    let nodes = nodes.into_iter().map(|node| {
        let fused = node.outputs.first().and_then(|name| replaced.get(name));
        fused.cloned().unwrap_or(node)
    });
    graph.nodes = needed(nodes.collect(), graph.output_names()?);
    if !model.operator_sets.iter().any(|set| set.domain == DOMAIN) {
        model.operator_sets.push(OperatorSet {
            domain: DOMAIN.to_owned(),
            version: 1,
        });
    }
    Some(model.encode_to_vec())
}

fn tensor(bytes: &Bytes) -> Option<Tensor> {
    Tensor::decode(bytes.clone()).ok()
}

/// The nodes that something needs; they are in order, so that one pass from the end finds them.
fn needed(nodes: Vec<Node>, outputs: Vec<String>) -> Vec<Node> {
    let mut wanted: HashSet<String> = outputs.into_iter().collect();
    let mut kept = Vec::with_capacity(nodes.len());
    for node in nodes.into_iter().rev() {
        if node.outputs.iter().any(|name| wanted.contains(name)) {
            wanted.extend(node.inputs.iter().cloned());
            kept.push(node);
        }
    }
    kept.reverse();
    kept
}

/// A graph as patterns are looked for in it.
struct Patterns<'a> {
    nodes: &'a [Node],
    made_by: HashMap<&'a str, &'a Node>,
    taken_by: HashMap<&'a str, Vec<&'a Node>>,
    constants: HashMap<&'a str, Tensor>,
}

impl<'a> Patterns<'a> {
    fn of(nodes: &'a [Node], initializers: &'a [Tensor]) -> Self {
        let mut made_by = HashMap::new();
        let mut taken_by: HashMap<_, Vec<_>> = HashMap::new();
        let mut constants = HashMap::new();
        for node in nodes {
            for output in &node.outputs {
                made_by.insert(output.as_str(), node);
            }
            for input in &node.inputs {
                taken_by.entry(input.as_str()).or_default().push(node);
            }
            if let ("Constant", [name], Some(value)) =
                (node.operator.as_str(), &*node.outputs, node.tensor("value"))
            {
                constants.insert(name.as_str(), value);
            }
        }
        for tensor in initializers {
            constants.insert(tensor.name.as_str(), tensor.clone());
        }
        Self {
            nodes,
            made_by,
            taken_by,
            constants,
        }
    }

    /// What replaces the nodes that make these outputs.
    fn found(&self) -> HashMap<String, Node> {
        // Names from outside reach into subgraphs without being inputs.
        if self.nodes.iter().any(Node::has_subgraph) {
            return HashMap::new();
        }
        let fused = self.nodes.iter().filter_map(|node| {
            let (output, fused) = match node.operator.as_str() {
                "Tanh" => self.gelu(node),
                "Softmax" => self.attention(node),
                _ => None,
            }?;
            Some((output.to_owned(), fused))
        });
        fused.collect()
    }

    /// 0.5 (x (1 + tanh(INNER (x + CUBIC (x (x x))))))
    fn gelu(&self, tanh: &'a Node) -> Option<(&'a str, Node)> {
        let inner = self.scaled(tanh.inputs.first()?, INNER)?;
        let sum = self.made(inner, "Add")?;
        let x = sum.inputs.iter().find(|x| {
            sum.other(x)
                .is_some_and(|cubic| self.is_cubic(cubic, x.as_str()))
        })?;
        let plus_one = self.only_taker(tanh.output()?, "Add")?;
        self.is_scalar(plus_one.other(tanh.output()?)?, 1.0)?;
        let times_x = self.only_taker(plus_one.output()?, "Mul")?;
        (times_x.other(plus_one.output()?)? == x).then_some(())?;
        let half = self.only_taker(times_x.output()?, "Mul")?;
        self.is_scalar(half.other(times_x.output()?)?, 0.5)?;
        let output = half.output()?;
        Some((output, Node::contrib("FastGelu", [x], output, [])))
    }

    fn is_cubic(&self, name: &str, x: &str) -> bool {
        let product = |name: &'a str| {
            let node = self.made(name, "Mul")?;
            node.other(x)
        };
        let cube = || {
            let cube = self.scaled(self.made_by.get(name)?.output()?, CUBIC)?;
            let square = self.made(product(cube)?, "Mul")?;
            square.inputs.iter().all(|i| i == x).then_some(())
        };
        cube().is_some()
    }

    /// softmax(scale q k' + mask) v, with q, k and v cut into heads before and the heads joined after.
    fn attention(&self, softmax: &'a Node) -> Option<(&'a str, Node)> {
        let last = matches!(softmax.number("axis"), None | Some(-1 | 3));
        last.then_some(())?;
        let masked = self.made(softmax.inputs.first()?, "Add")?;
        let scaled = masked.inputs.iter().find_map(|name| {
            let node = self.made(name, "Mul")?;
            let product = node.inputs.iter().find_map(|i| self.made(i, "MatMul"))?;
            Some((self.scalar(node.other(product.output()?)?)?, product))
        });
        let (scale, scores) = scaled?;
        let [queries, keys] = &*scores.inputs else {
            return None;
        };
        let weighted = self.only_taker(softmax.output()?, "MatMul")?;
        let values = weighted.other(softmax.output()?)?;
        let [q, k, v] = [
            self.headed(queries, &[0, 2, 1, 3])?,
            self.headed(keys, &[0, 2, 3, 1])?,
            self.headed(values, &[0, 2, 1, 3])?,
        ];
        let joined = self.only_taker(weighted.output()?, "Transpose")?;
        (joined.numbers("perm")? == [0, 2, 1, 3]).then_some(())?;
        let takers = self.taken_by.get(joined.output()?)?;
        let flat = takers.iter().find(|node| node.operator == "Reshape")?;
        let heads = self.heads(q, scale)?;
        let output = flat.output()?;
        let attributes = [Attribute::number("num_heads", heads)];
        let inputs = [q, k, v];
        let node = Node::contrib("MultiHeadAttention", inputs, output, attributes);
        Some((output, node))
    }

    /// What was cut into heads and turned to make `name`.
    fn headed(&self, name: &str, perm: &[i64]) -> Option<&'a str> {
        let turned = self.made(name, "Transpose")?;
        (turned.numbers("perm")? == perm).then_some(())?;
        let cut = self.made(turned.inputs.first()?, "Reshape")?;
        Some(cut.inputs.first()?.as_str())
    }

    /// How many heads a projection is cut into: their width is one over the square of the scale.
    fn heads(&self, projection: &str, scale: f32) -> Option<i64> {
        let biased = self.made(projection, "Add")?;
        let bias = biased
            .inputs
            .iter()
            .find_map(|i| self.constants.get(i.as_str()))?;
        let [hidden] = *bias.dims else { return None };
        let width = f64::from(scale).powi(-2);
        let whole = width.round();
        ((width - whole).abs() < 1e-3 * width && whole >= 1.0).then_some(())?;
        let width = whole as i64;
        (hidden % width == 0).then_some(hidden / width)
    }

    /// What is multiplied by `factor` to make `name`.
    fn scaled(&self, name: &str, factor: f32) -> Option<&'a str> {
        let node = self.made(name, "Mul")?;
        let given = node
            .inputs
            .iter()
            .find(|i| self.is_scalar(i, factor).is_some())?;
        node.other(given)
    }

    fn is_scalar(&self, name: &str, value: f32) -> Option<()> {
        ((self.scalar(name)? - value).abs() < 1e-5).then_some(())
    }

    fn scalar(&self, name: &str) -> Option<f32> {
        self.constants.get(name)?.scalar()
    }

    /// The node that makes `name`, if it is of this operator.
    fn made(&self, name: &str, operator: &str) -> Option<&'a Node> {
        let node = self.made_by.get(name)?;
        (node.operator == operator).then_some(*node)
    }

    /// The node that takes `name`, if there is one and it is of this operator.
    fn only_taker(&self, name: &str, operator: &str) -> Option<&'a Node> {
        let [node] = &**self.taken_by.get(name)? else {
            return None;
        };
        (node.operator == operator).then_some(*node)
    }
}

#[cfg(test)]
mod tests;
