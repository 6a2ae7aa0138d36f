//! The processing graph of an application, to be printed: as Kafka Streams' `Topology#describe` does, as Mermaid, and as Graphviz DOT.
//!
//! ```text
//! source --> decode --> one processor per monitor --> events
//!               \--> dead letters      |\-- store, with its changelog
//!                                      \--> repartition topic --> one processor per monitor of scope global --> events
//! ```
//!
//! One input topic is one sub-topology, and so is each repartition topic, after all inputs; a task is named `<sub-topology>_<partition>`. The graph shows what is computed from what; that
//! [`crate::processor::DriftProcessor`] runs all processors of a sub-topology in one pass is not its business.

use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::processor::Monitor;

/// The store of an input topic's windows.
#[must_use]
pub fn store_name(topic: &str) -> String {
    format!("windows-{topic}")
}

/// The topic that the panes of an input topic go through, to the windows of the whole topic.
#[must_use]
pub fn repartition_topic(application_id: &str, topic: &str) -> String {
    format!("{application_id}-panes-{topic}-repartition")
}

/// The store of the windows of a whole topic.
#[must_use]
pub fn global_store_name(topic: &str) -> String {
    format!("global-{topic}")
}

/// The topic that a store's changes are logged to.
#[must_use]
pub fn changelog_topic(application_id: &str, store: &str) -> String {
    format!("{application_id}-{store}-changelog")
}

/// The processing graph of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// One per input topic, in the order of the monitors.
    pub subtopologies: Vec<Subtopology>,
}

/// What processes one input topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subtopology {
    /// The first part of its tasks' names.
    pub id: usize,
    /// Sources first, then processors, then sinks: each after those that it takes from.
    pub nodes: Vec<Node>,
    /// Its state stores.
    pub stores: Vec<Store>,
}

/// A state store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Its name.
    pub name: String,
    /// The topic that its changes are logged to.
    pub changelog_topic: String,
}

/// A node of the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name, unique in the application.
    pub name: String,
    /// What it does.
    pub kind: NodeKind,
    /// Names of the nodes that it gives to.
    pub successors: Vec<String>,
    /// Names of the nodes that it takes from.
    pub predecessors: Vec<String>,
}

/// What a node does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// Reads a topic.
    Source {
        /// Which.
        topic: String,
    },
    /// Processes records.
    Processor {
        /// Names of the stores that it uses.
        stores: Vec<String>,
    },
    /// Writes a topic.
    Sink {
        /// Which.
        topic: String,
    },
}

impl Topology {
    /// The graph of an application with these monitors.
    #[must_use]
    pub fn new(application_id: &str, monitors: &[Arc<Monitor>]) -> Self {
        let mut topics: Vec<&str> = Vec::new();
        for monitor in monitors {
            if !topics.contains(&&*monitor.topic) {
                topics.push(&monitor.topic);
            }
        }
        let of_topic = |topic: &str| -> Vec<&Monitor> {
            let own = monitors.iter().filter(|monitor| *monitor.topic == *topic);
            own.map(|monitor| &**monitor).collect()
        };
        let is_global = |monitor: &&Monitor| monitor.scopes.global;
        let mut subtopologies: Vec<_> = topics
            .iter()
            .enumerate()
            .map(|(id, topic)| Subtopology::new(id, application_id, topic, &of_topic(topic)))
            .collect();
        for topic in topics {
            let watched: Vec<_> = of_topic(topic).into_iter().filter(is_global).collect();
            if !watched.is_empty() {
                subtopologies.push(Subtopology::global(subtopologies.len(), application_id, topic, &watched));
            }
        }
        Self { subtopologies }
    }

    /// The graph as text, in the form of Kafka Streams' `Topology#describe`.
    #[must_use]
    pub fn describe(&self) -> String {
        self.to_string()
    }

    /// The graph as a Mermaid flowchart.
    #[must_use]
    pub fn mermaid(&self) -> String {
        self.draw(&MERMAID)
    }

    /// The graph in Graphviz' DOT language.
    #[must_use]
    pub fn dot(&self) -> String {
        self.draw(&DOT)
    }

    fn draw(&self, pen: &Pen) -> String {
        let mut out = pen.head.to_owned();
        for subtopology in &self.subtopologies {
            (pen.open)(&mut out, subtopology.id);
            // Names may hold any character, so the drawings use numbers.
            let id = |name: &str| {
                let index = subtopology.nodes.iter().position(|node| node.name == name).unwrap_or_default();
                format!("n{}_{index}", subtopology.id)
            };
            for node in &subtopology.nodes {
                match &node.kind {
                    NodeKind::Source { topic } | NodeKind::Sink { topic } => (pen.topic)(&mut out, &id(&node.name), topic),
                    NodeKind::Processor { .. } => (pen.processor)(&mut out, &id(&node.name), &node.name),
                }
            }
            for (index, store) in subtopology.stores.iter().enumerate() {
                (pen.store)(&mut out, &format!("s{}_{index}", subtopology.id), store);
            }
            out.push_str(pen.close);
            for node in &subtopology.nodes {
                for successor in &node.successors {
                    (pen.edge)(&mut out, &id(&node.name), &id(successor));
                }
                let NodeKind::Processor { stores } = &node.kind else { continue };
                for (index, _) in subtopology.stores.iter().enumerate().filter(|(_, store)| stores.contains(&store.name)) {
                    (pen.uses)(&mut out, &id(&node.name), &format!("s{}_{index}", subtopology.id));
                }
            }
        }
        out.push_str(pen.foot);
        out
    }
}

impl Subtopology {
    fn new(id: usize, application_id: &str, topic: &str, monitors: &[&Monitor]) -> Self {
        let mut nodes = Nodes::default();
        let (source, decode) = (format!("source-{topic}"), format!("decode-{topic}"));
        let store = Store::new(application_id, store_name(topic));
        nodes.add(&source, NodeKind::Source { topic: topic.to_owned() }, &[]);
        nodes.add(&decode, NodeKind::Processor { stores: Vec::new() }, &[&source]);
        let processor = |monitor: &Monitor| format!("drift-{}", monitor.name);
        for monitor in monitors {
            nodes.add(&processor(monitor), store.used(), &[&decode]);
        }
        for monitor in monitors.iter().filter(|monitor| monitor.scopes.partition) {
            nodes.sink(id, &monitor.events_topic, &processor(monitor));
        }
        for monitor in monitors.iter().filter(|monitor| monitor.scopes.global) {
            nodes.sink(id, &repartition_topic(application_id, topic), &processor(monitor));
        }
        if let Some(monitor) = monitors.first() {
            nodes.sink(id, &monitor.dead_letter_topic, &decode);
        }
        Self {
            id,
            nodes: nodes.0,
            stores: vec![store],
        }
    }

    /// Of the monitors that watch the whole of an input topic.
    fn global(id: usize, application_id: &str, topic: &str, monitors: &[&Monitor]) -> Self {
        let mut nodes = Nodes::default();
        let panes = repartition_topic(application_id, topic);
        let source = format!("source-{panes}");
        let store = Store::new(application_id, global_store_name(topic));
        nodes.add(&source, NodeKind::Source { topic: panes }, &[]);
        let processor = |monitor: &Monitor| format!("global-drift-{}", monitor.name);
        for monitor in monitors {
            nodes.add(&processor(monitor), store.used(), &[&source]);
        }
        for monitor in monitors {
            nodes.sink(id, &monitor.events_topic, &processor(monitor));
        }
        Self {
            id,
            nodes: nodes.0,
            stores: vec![store],
        }
    }
}

impl Store {
    fn new(application_id: &str, name: String) -> Self {
        Self {
            changelog_topic: changelog_topic(application_id, &name),
            name,
        }
    }

    /// A processor that uses it.
    fn used(&self) -> NodeKind {
        NodeKind::Processor {
            stores: vec![self.name.clone()],
        }
    }
}

/// The nodes of a sub-topology while it is made.
#[derive(Default)]
struct Nodes(Vec<Node>);

impl Nodes {
    /// Adds a node, if there is none of this name, and its edges.
    fn add(&mut self, name: &str, kind: NodeKind, predecessors: &[&str]) {
        if !self.0.iter().any(|node| node.name == name) {
            self.0.push(Node {
                name: name.to_owned(),
                kind,
                successors: Vec::new(),
                predecessors: Vec::new(),
            });
        }
        for predecessor in predecessors {
            let Some(from) = self.0.iter_mut().find(|node| node.name == *predecessor) else {
                continue;
            };
            from.successors.push(name.to_owned());
            let Some(to) = self.0.iter_mut().find(|node| node.name == name) else {
                continue;
            };
            to.predecessors.push((*predecessor).to_owned());
        }
    }

    fn sink(&mut self, id: usize, topic: &str, predecessor: &str) {
        let name = format!("sink-{id}-{topic}");
        self.add(&name, NodeKind::Sink { topic: topic.to_owned() }, &[predecessor]);
    }
}

impl fmt::Display for Topology {
    /// Spaces and line ends are Kafka's own, so that the tools that draw its descriptions draw this one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Topologies:\n ")?;
        for Subtopology { id, nodes, .. } in &self.subtopologies {
            writeln!(f, "  Sub-topology: {id}")?;
            for Node {
                name,
                kind,
                successors,
                predecessors,
            } in nodes
            {
                let names = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                let (to, from) = (names(successors), names(predecessors));
                match kind {
                    NodeKind::Source { topic } => writeln!(f, "    Source: {name} (topics: [{topic}])\n      --> {to}")?,
                    NodeKind::Processor { stores } => {
                        writeln!(
                            f,
                            "    Processor: {name} (stores: [{}])\n      --> {to}\n      <-- {from}",
                            stores.join(", ")
                        )?;
                    }
                    NodeKind::Sink { topic } => writeln!(f, "    Sink: {name} (topic: {topic})\n      <-- {from}")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// How a drawing language writes the parts of a graph.
struct Pen {
    head: &'static str,
    open: fn(&mut String, usize),
    topic: fn(&mut String, &str, &str),
    processor: fn(&mut String, &str, &str),
    store: fn(&mut String, &str, &Store),
    close: &'static str,
    edge: fn(&mut String, &str, &str),
    uses: fn(&mut String, &str, &str),
    foot: &'static str,
}

/// Appends a line; writing to a `String` cannot fail.
macro_rules! line {
    ($out:expr, $($arguments:tt)*) => { writeln!($out, $($arguments)*).unwrap_or_default() };
}

const MERMAID: Pen = Pen {
    head: "flowchart LR\n",
    open: |out, id| line!(out, "  subgraph sub{id} [Sub-topology {id}]"),
    topic: |out, id, topic| line!(out, "    {id}>\"{}\"]", mermaid_text(topic)),
    processor: |out, id, name| line!(out, "    {id}[\"{}\"]", mermaid_text(name)),
    store: |out, id, store| {
        line!(
            out,
            "    {id}[(\"{}<br/>{}\")]",
            mermaid_text(&store.name),
            mermaid_text(&store.changelog_topic)
        )
    },
    close: "  end\n",
    edge: |out, from, to| line!(out, "  {from} --> {to}"),
    uses: |out, processor, store| line!(out, "  {processor} -.- {store}"),
    foot: "",
};

const DOT: Pen = Pen {
    head: "digraph topology {\n  rankdir=LR;\n  node [shape=box];\n",
    open: |out, id| line!(out, "  subgraph cluster_{id} {{\n    label=\"Sub-topology {id}\";"),
    topic: |out, id, topic| line!(out, "    {id} [shape=cds, label=\"{}\"];", dot_text(topic)),
    processor: |out, id, name| line!(out, "    {id} [label=\"{}\"];", dot_text(name)),
    store: |out, id, store| {
        line!(
            out,
            "    {id} [shape=cylinder, label=\"{}\\n{}\"];",
            dot_text(&store.name),
            dot_text(&store.changelog_topic)
        )
    },
    close: "  }\n",
    edge: |out, from, to| line!(out, "  {from} -> {to};"),
    uses: |out, processor, store| line!(out, "  {processor} -> {store} [dir=none, style=dashed];"),
    foot: "}\n",
};

/// Mermaid has no escape in quoted text but the entity.
fn mermaid_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;")
}

fn dot_text(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests;
