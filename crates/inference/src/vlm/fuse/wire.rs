//! The parts of ONNX's file format that fusing reads or a runtime needs; weights and the like are carried along as bytes.
//!
//! Field numbers are those of onnx/onnx.proto.

use bytes::Bytes;
use prost::Message;

/// `TensorProto.DataType`.
const FLOAT: i32 = 1;
const FLOAT16: i32 = 10;
const BFLOAT16: i32 = 16;
/// `TensorProto.DataLocation`.
const EXTERNAL: i32 = 1;
/// `AttributeProto.AttributeType`.
const INT: i32 = 2;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Model {
    #[prost(int64, optional, tag = "1")]
    ir_version: Option<i64>,
    #[prost(string, optional, tag = "2")]
    producer_name: Option<String>,
    #[prost(string, optional, tag = "3")]
    producer_version: Option<String>,
    #[prost(string, optional, tag = "4")]
    domain: Option<String>,
    #[prost(int64, optional, tag = "5")]
    model_version: Option<i64>,
    #[prost(message, optional, tag = "7")]
    pub(super) graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub(super) operator_sets: Vec<OperatorSet>,
    #[prost(bytes = "bytes", repeated, tag = "25")]
    functions: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OperatorSet {
    #[prost(string, tag = "1")]
    pub(super) domain: String,
    #[prost(int64, tag = "2")]
    pub(super) version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub(super) nodes: Vec<Node>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub(super) initializers: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "11")]
    inputs: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "12")]
    outputs: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "14")]
    quantization: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "15")]
    sparse_initializers: Vec<Bytes>,
}

/// `ValueInfoProto`.
#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub(super) inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) outputs: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    pub(super) operator: String,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    attributes: Vec<Bytes>,
    #[prost(string, tag = "7")]
    domain: String,
    #[prost(string, tag = "8")]
    overload: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "3")]
    number: i64,
    #[prost(bytes = "bytes", optional, tag = "5")]
    tensor: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "6")]
    graph: Option<Bytes>,
    #[prost(int64, repeated, tag = "8")]
    numbers: Vec<i64>,
    #[prost(bytes = "bytes", repeated, tag = "11")]
    graphs: Vec<Bytes>,
    #[prost(int32, tag = "20")]
    kind: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    pub(super) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    kind: i32,
    #[prost(float, repeated, tag = "4")]
    floats: Vec<f32>,
    #[prost(string, tag = "8")]
    pub(super) name: String,
    #[prost(bytes = "bytes", tag = "9")]
    raw: Bytes,
    #[prost(int32, tag = "14")]
    location: i32,
}

impl Graph {
    /// Names of what the graph gives.
    pub(super) fn output_names(&self) -> Option<Vec<String>> {
        let values = self
            .outputs
            .iter()
            .map(|bytes| Value::decode(bytes.clone()));
        let names = values.map(|value| Some(value.ok()?.name));
        names.collect()
    }
}

impl Node {
    /// A node of ONNX Runtime's own operators.
    pub(super) fn contrib<const I: usize, const A: usize>(
        operator: &str,
        inputs: [&str; I],
        output: &str,
        attributes: [Attribute; A],
    ) -> Self {
        Self {
            inputs: inputs.map(str::to_owned).to_vec(),
            outputs: vec![output.to_owned()],
            name: format!("{output}/{operator}"),
            operator: operator.to_owned(),
            attributes: attributes.map(|a| a.encode_to_vec().into()).to_vec(),
            domain: super::DOMAIN.to_owned(),
            overload: String::new(),
        }
    }

    /// Its output, if it has one.
    pub(super) fn output(&self) -> Option<&str> {
        match &*self.outputs {
            [output] => Some(output),
            _ => None,
        }
    }

    /// The other one of two inputs.
    pub(super) fn other(&self, one: &str) -> Option<&str> {
        match &*self.inputs {
            [a, b] if a == one => Some(b),
            [a, b] if b == one => Some(a),
            _ => None,
        }
    }

    /// An attribute that is a tensor.
    pub(super) fn tensor(&self, name: &str) -> Option<Tensor> {
        Tensor::decode(self.attribute(name)?.tensor?).ok()
    }

    /// An attribute that is a number.
    pub(super) fn number(&self, name: &str) -> Option<i64> {
        Some(self.attribute(name)?.number)
    }

    /// An attribute that is a list of numbers.
    pub(super) fn numbers(&self, name: &str) -> Option<Vec<i64>> {
        Some(self.attribute(name)?.numbers)
    }

    /// Whether it runs a graph of its own, as `If` and `Loop` do; what can't be read might.
    pub(super) fn has_subgraph(&self) -> bool {
        self.attributes.iter().any(|bytes| {
            let attribute = Attribute::decode(bytes.clone());
            attribute.map_or(true, |a| a.graph.is_some() || !a.graphs.is_empty())
        })
    }

    fn attribute(&self, name: &str) -> Option<Attribute> {
        let attributes = self.attributes.iter();
        let mut read = attributes.filter_map(|bytes| Attribute::decode(bytes.clone()).ok());
        read.find(|attribute| attribute.name == name)
    }
}

impl Attribute {
    pub(super) fn number(name: &str, number: i64) -> Self {
        Self {
            name: name.to_owned(),
            number,
            kind: INT,
            ..Self::default()
        }
    }
}

impl Tensor {
    /// Whether it has half precision, for which the CPU has no fused operators, or lies in another file.
    pub(super) fn is_half_or_elsewhere(&self) -> bool {
        matches!(self.kind, FLOAT16 | BFLOAT16) || self.location == EXTERNAL
    }

    /// Its number, if it is one float.
    pub(super) fn scalar(&self) -> Option<f32> {
        (self.kind == FLOAT && self.dims.iter().all(|size| *size == 1)).then_some(())?;
        match (&*self.floats, <[u8; 4]>::try_from(&*self.raw)) {
            ([value], _) => Some(*value),
            ([], Ok(bytes)) => Some(f32::from_le_bytes(bytes)),
            _ => None,
        }
    }
}
