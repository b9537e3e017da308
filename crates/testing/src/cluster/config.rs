//! The configuration file of a node.

use std::{fmt::Write, time::Duration};

use super::{
    DialMap, Plan, certificates,
    credentials::{Credentials, EMERGENCY_ISSUER, ISSUER},
    layout::{Layout, Node},
};

/// Lower bound of the directory's round trip: below it, pauses of the machine would cause elections.
const DIRECTORY_RTT_MIN: Duration = Duration::from_millis(100);

/// Name of the cluster.
pub(super) const CLUSTER: &str = "dev";

/// Returns a node's configuration as TOML.
pub(super) fn of(plan: &Plan, layout: &Layout, node: &Node, dial: &DialMap) -> String {
    let groups = plan.groups_per_region;
    let mut text = format!("[cluster]\nname = \"{CLUSTER}\"\ngroups_per_region = {groups}\n");
    let write = &mut text;
    // Writing to a string cannot fail.
    let mut line = |line: std::fmt::Arguments| {
        let _ = writeln!(write, "{line}");
    };
    let farthest = plan.round_trips.iter().map(|(_, _, round_trip)| *round_trip).max();
    let farthest = farthest.unwrap_or_default().max(DIRECTORY_RTT_MIN);
    line(format_args!("directory_rtt_max = \"{}ms\"", farthest.as_millis()));
    line(format_args!("{}", membership(plan, layout, node)));
    line(format_args!("[node]\nname = {}", quoted(&node.name)));
    line(format_args!(
        "data_dir = {}",
        quoted(&plan.data_of(&node.name).to_string_lossy())
    ));
    for (section, address) in [("client", &node.client), ("peer", &node.peer), ("http", &node.http)] {
        line(format_args!(
            "\n[{section}]\nlisten = \"{address}\"\nadvertise = \"{address}\""
        ));
    }
    line(format_args!("{}{}", tls_section(plan, node), auth_section(plan)));
    line(format_args!(
        "[storage]\nengine = {}\nsled_majority = {}\n\n[log]\nformat = \"text\"\n\n[net.dial]",
        quoted(&node.engine),
        has_sled_majority(plan, layout)
    ));
    for (advertised, dialled) in dial {
        line(format_args!("\"{advertised}\" = \"{dialled}\""));
    }
    text
}

/// Returns the nodes and regions that the cluster begins with; for a node that joins where it asks.
fn membership(plan: &Plan, layout: &Layout, node: &Node) -> String {
    let initial = layout.nodes.iter().filter(|node| node.initial);
    if !node.initial {
        let peers: Vec<String> = initial.map(|node| quoted(&node.peer)).collect();
        return format!("join = [{}]\n", peers.join(", "));
    }
    let mut text = "regions = [\n".to_owned();
    for region in plan.regions.iter().filter(|region| region.initial > 0) {
        let (name, jurisdiction) = (quoted(&region.name), quoted(&region.jurisdiction));
        text += &format!("  {{ name = {name}, jurisdiction = {jurisdiction} }},\n");
    }
    text += "]\ninitial = [\n";
    for Node {
        name,
        region,
        client,
        peer,
        http,
        engine,
        initial: _,
    } in initial
    {
        let is_witness = plan.regions.iter().any(|known| known.witness && known.name == *region);
        let witness = if is_witness { ", witness = true" } else { "" };
        text += &format!(
            "  {{ name = \"{name}\", region = \"{region}\", peer = \"{peer}\", client = \"{client}\", http = \"{http}\", \
             engine = \"{engine}\"{witness} }},\n"
        );
    }
    text + "]\n"
}

/// Returns the settings of TLS; empty where plain text is spoken.
fn tls_section(plan: &Plan, node: &Node) -> String {
    if !plan.tls {
        return String::new();
    }
    let files = plan.certificates().tls_files(&certificates::subject(node));
    let settings = [
        ("ca", Some(&files.ca)),
        ("certificate", files.certificate.as_ref()),
        ("key", files.key.as_ref()),
    ];
    let lines = settings.map(|(key, file)| {
        let file = file.map_or_else(Default::default, |file| file.to_string_lossy());
        format!("{key} = {}\n", quoted(&file))
    });
    format!("\n[tls]\n{}", lines.concat())
}

/// Returns the settings of credentials; empty where nobody is asked for one.
fn auth_section(plan: &Plan) -> String {
    if !plan.asks_for_credentials {
        return String::new();
    }
    let credentials = Credentials::of(plan);
    let key = |issuer| quoted(&credentials.public_key(issuer).to_string_lossy());
    format!(
        "\n[auth]\nmode = \"required\"\nhttp_open = [\"/metrics\", \"/route\"]\ntoken_lifetime_max = \"30d\"\n\
         issuers = [\n  {{ name = \"{ISSUER}\", public_key_file = {}, grants_roles = true }},\n  \
         {{ name = \"{EMERGENCY_ISSUER}\", public_key_file = {}, emergency = true }},\n]\n",
        key(ISSUER),
        key(EMERGENCY_ISSUER)
    )
}

/// Tells whether a majority of a region's voters, or of the directory's, is on sled: the plan asks for it, so the
/// nodes' check is switched off.
fn has_sled_majority(plan: &Plan, layout: &Layout) -> bool {
    let nodes_of = |region: &str| -> Vec<&Node> { layout.nodes.iter().filter(|node| node.region == region).collect() };
    let regions: Vec<Vec<&Node>> = plan.regions.iter().map(|region| nodes_of(&region.name)).collect();
    let directory: Vec<&Node> = match &regions[..] {
        [only] => only.iter().copied().take(3).collect(),
        several => several.iter().filter_map(|nodes| nodes.first().copied()).collect(),
    };
    let is_most = |voters: &Vec<&Node>| voters.len() < 2 * voters.iter().filter(|node| node.engine == "sled").count();
    regions.iter().chain([&directory]).any(is_most)
}

/// Quotes a TOML basic string: a JSON string is one, except for control characters that no name or path here has.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string")
}
