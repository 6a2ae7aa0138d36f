use super::*;

fn topology() -> Topology {
    let mut strict = Monitor::new("strict", "drift-data");
    strict.events_topic = "strict-events".into();
    let monitors = [Monitor::new("default", "drift-data"), Monitor::new("orders", "orders"), strict];
    Topology::new("app", &monitors.map(Arc::new))
}

#[test]
fn description_is_that_of_kafka_streams() {
    let expected = "\
Topologies:
   Sub-topology: 0
    Source: source-drift-data (topics: [drift-data])
      --> decode-drift-data
    Processor: decode-drift-data (stores: [])
      --> drift-default, drift-strict, sink-0-drift-data-dlq
      <-- source-drift-data
    Processor: drift-default (stores: [windows-drift-data])
      --> sink-0-drift-events
      <-- decode-drift-data
    Processor: drift-strict (stores: [windows-drift-data])
      --> sink-0-strict-events
      <-- decode-drift-data
    Sink: sink-0-drift-events (topic: drift-events)
      <-- drift-default
    Sink: sink-0-strict-events (topic: strict-events)
      <-- drift-strict
    Sink: sink-0-drift-data-dlq (topic: drift-data-dlq)
      <-- decode-drift-data

  Sub-topology: 1
    Source: source-orders (topics: [orders])
      --> decode-orders
    Processor: decode-orders (stores: [])
      --> drift-orders, sink-1-orders-dlq
      <-- source-orders
    Processor: drift-orders (stores: [windows-orders])
      --> sink-1-drift-events
      <-- decode-orders
    Sink: sink-1-drift-events (topic: drift-events)
      <-- drift-orders
    Sink: sink-1-orders-dlq (topic: orders-dlq)
      <-- decode-orders

";
    assert_eq!(topology().describe(), expected);
}

#[test]
fn monitors_with_one_events_topic_share_its_sink() {
    let monitors = ["a", "b"].map(|name| Arc::new(Monitor::new(name, "t")));
    let description = Topology::new("app", &monitors).describe();
    assert!(
        description.contains("    Sink: sink-0-drift-events (topic: drift-events)\n      <-- drift-a, drift-b\n"),
        "{description}"
    );
}

#[test]
fn drawings_show_topics_processors_and_the_store_with_its_changelog() {
    let monitors = [Arc::new(Monitor::new("say \"hi\"", "t"))];
    let topology = Topology::new("app", &monitors);
    let mermaid = "\
flowchart LR
  subgraph sub0 [Sub-topology 0]
    n0_0>\"t\"]
    n0_1[\"decode-t\"]
    n0_2[\"drift-say &quot;hi&quot;\"]
    n0_3>\"drift-events\"]
    n0_4>\"t-dlq\"]
    s0_0[(\"windows-t<br/>app-windows-t-changelog\")]
  end
  n0_0 --> n0_1
  n0_1 --> n0_2
  n0_1 --> n0_4
  n0_2 --> n0_3
  n0_2 -.- s0_0
";
    assert_eq!(topology.mermaid(), mermaid);
    let dot = r#"digraph topology {
  rankdir=LR;
  node [shape=box];
  subgraph cluster_0 {
    label="Sub-topology 0";
    n0_0 [shape=cds, label="t"];
    n0_1 [label="decode-t"];
    n0_2 [label="drift-say \"hi\""];
    n0_3 [shape=cds, label="drift-events"];
    n0_4 [shape=cds, label="t-dlq"];
    s0_0 [shape=cylinder, label="windows-t\napp-windows-t-changelog"];
  }
  n0_0 -> n0_1;
  n0_1 -> n0_2;
  n0_1 -> n0_4;
  n0_2 -> n0_3;
  n0_2 -> s0_0 [dir=none, style=dashed];
}
"#;
    assert_eq!(topology.dot(), dot);
}

#[test]
fn scope_global_is_a_sub_topology_of_its_own_behind_all_inputs() {
    let mut everywhere = Monitor::new("everywhere", "a");
    everywhere.scopes.global = true;
    let monitors = [everywhere, Monitor::new("m", "b")];
    let description = Topology::new("app", &monitors.map(Arc::new)).describe();
    let expected = "\
    Processor: drift-everywhere (stores: [windows-a])
      --> sink-0-drift-events, sink-0-app-panes-a-repartition
      <-- decode-a
";
    assert!(description.contains(expected), "{description}");
    let expected = "\
  Sub-topology: 2
    Source: source-app-panes-a-repartition (topics: [app-panes-a-repartition])
      --> global-drift-everywhere
    Processor: global-drift-everywhere (stores: [global-a])
      --> sink-2-drift-events
      <-- source-app-panes-a-repartition
    Sink: sink-2-drift-events (topic: drift-events)
      <-- global-drift-everywhere

";
    assert!(description.ends_with(expected), "{description}");
}
