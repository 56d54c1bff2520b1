//! Azure: `ovf-env.xml` and the documents of the wire server (cloud-init, `sources/helpers/azure.py`).

use roxmltree::{Document, Node, ParsingOptions};
use serde::Deserialize;

use super::{InstanceData, add_keys, decoded};
use crate::seed::Bytes;

/// Most elements of a document.
const MAX_NODES: u32 = 10_000;

/// Why a document can't be read.
#[derive(Debug, thiserror::Error)]
pub enum AzureError {
    /// It is no XML.
    #[error("it is no XML: {0}")]
    Xml(#[from] roxmltree::Error),
    /// It is not UTF-8.
    #[error("it is not UTF-8 text")]
    NotText,
    /// An element is missing.
    #[error("it has no element {0}")]
    Missing(&'static str),
    /// It is no JSON.
    #[error("it is no valid JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// What is used of `ovf-env.xml`. A password in it is not: logins need a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// `HostName`.
    pub hostname: Option<String>,
    /// Keys whose value is in the document.
    pub public_keys: Vec<String>,
    /// `CustomData`.
    pub user_data: Option<Bytes>,
}

/// Reads `ovf-env.xml`.
///
/// # Errors
/// [`AzureError`].
pub fn environment(bytes: &[u8]) -> Result<Environment, AzureError> {
    let text = text(bytes)?;
    let document = parse(text)?;
    let section = element(document.root(), "LinuxProvisioningConfigurationSet")
        .ok_or(AzureError::Missing("LinuxProvisioningConfigurationSet"))?;
    let word = |name: &str| {
        let text = element(section, name)?.text()?.trim();
        (!text.is_empty()).then(|| text.to_owned())
    };
    let user_data = word("CustomData").or_else(|| word("UserData"));
    let public_keys = section
        .descendants()
        .filter(|node| node.has_tag_name_of("PublicKey"))
        .filter_map(|node| Some(element(node, "Value")?.text()?.trim().to_owned()))
        .filter(|key| !key.is_empty())
        .collect();
    Ok(Environment {
        hostname: word("HostName"),
        public_keys,
        user_data: user_data.and_then(|text| decoded(&text)),
    })
}

#[derive(Deserialize)]
struct Wire {
    compute: Compute,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Compute {
    vm_id: String,
    name: Option<String>,
    os_profile: Option<Profile>,
    #[serde(default)]
    public_keys: Vec<Key>,
    user_data: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    computer_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Key {
    key_data: Option<String>,
}

/// Reads `/metadata/instance?api-version=2021-08-01`: `compute.vmId`, the name of the operating system's
/// profile or of the machine, `compute.publicKeys`, `compute.userData`.
///
/// # Errors
/// [`AzureError`].
pub fn instance(bytes: &[u8]) -> Result<InstanceData, AzureError> {
    let Wire { compute } = serde_json::from_slice(bytes)?;
    let name = compute.os_profile.and_then(|profile| profile.computer_name);
    let keys = compute
        .public_keys
        .into_iter()
        .filter_map(|key| key.key_data);
    let in_one_line = |key: String| key.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    let mut public_keys = Vec::new();
    add_keys(&mut public_keys, keys.map(in_one_line));
    let user_data = compute.user_data.filter(|text| !text.is_empty());
    Ok(InstanceData {
        id: compute.vm_id,
        hostname: name.or(compute.name).filter(|name| !name.is_empty()),
        public_keys,
        user_data: user_data.and_then(|text| decoded(&text)),
    })
}

/// What a report needs of the goal state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoalState {
    /// `Incarnation`.
    pub incarnation: String,
    /// `ContainerId`.
    pub container: String,
    /// `InstanceId`.
    pub instance: String,
}

/// Reads `/machine/?comp=goalstate`.
///
/// # Errors
/// [`AzureError`].
pub fn goal_state(bytes: &[u8]) -> Result<GoalState, AzureError> {
    let document = parse(text(bytes)?)?;
    let word = |name: &'static str| {
        element(document.root(), name)
            .and_then(|node| node.text())
            .map(|text| text.trim().to_owned())
            .ok_or(AzureError::Missing(name))
    };
    Ok(GoalState {
        incarnation: word("Incarnation")?,
        container: word("ContainerId")?,
        instance: word("InstanceId")?,
    })
}

/// The document that says that the machine is ready.
#[must_use]
pub fn ready_report(goal: &GoalState) -> String {
    format!(
        r#"<?xml version="1.0" encoding="utf-8"?>
<Health xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xsd="http://www.w3.org/2001/XMLSchema">
  <GoalStateIncarnation>{}</GoalStateIncarnation>
  <Container>
    <ContainerId>{}</ContainerId>
    <RoleInstanceList>
      <Role>
        <InstanceId>{}</InstanceId>
        <Health>
          <State>Ready</State>
        </Health>
      </Role>
    </RoleInstanceList>
  </Container>
</Health>
"#,
        escaped(&goal.incarnation),
        escaped(&goal.container),
        escaped(&goal.instance)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn text(bytes: &[u8]) -> Result<&str, AzureError> {
    let text = std::str::from_utf8(bytes).map_err(|_| AzureError::NotText)?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn parse(text: &str) -> Result<Document<'_>, AzureError> {
    let options = ParsingOptions {
        // Entities of one's own can grow without end.
        allow_dtd: false,
        nodes_limit: MAX_NODES,
        ..ParsingOptions::default()
    };
    Ok(Document::parse_with_options(text, options)?)
}

/// The first element of a name below `node`, whatever its namespace.
fn element<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.descendants().find(|node| node.has_tag_name_of(name))
}

trait LocalName {
    fn has_tag_name_of(&self, name: &str) -> bool;
}

impl LocalName for Node<'_, '_> {
    fn has_tag_name_of(&self, name: &str) -> bool {
        self.is_element() && self.tag_name().name() == name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVF: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:wa="http://schemas.microsoft.com/windowsazure">
 <wa:ProvisioningSection><wa:Version>1.0</wa:Version>
  <LinuxProvisioningConfigurationSet xmlns="http://schemas.microsoft.com/windowsazure">
   <ConfigurationSetType>LinuxProvisioningConfiguration</ConfigurationSetType>
   <HostName>web</HostName><UserName>me</UserName><UserPassword>secret</UserPassword>
   <CustomData>I2Nsb3VkLWNvbmZpZwo=</CustomData>
   <SSH><PublicKeys><PublicKey><Fingerprint>X</Fingerprint><Path>/x</Path><Value>ssh-rsa A</Value></PublicKey></PublicKeys></SSH>
  </LinuxProvisioningConfigurationSet>
 </wa:ProvisioningSection></Environment>"#;

    #[test]
    fn the_environment_is_read() {
        let environment = environment(OVF.as_bytes()).unwrap();
        assert_eq!(environment.hostname.as_deref(), Some("web"));
        assert_eq!(environment.public_keys, ["ssh-rsa A"]);
        assert_eq!(environment.user_data.unwrap().0, b"#cloud-config\n");
    }

    #[test]
    fn entities_are_refused() {
        let bomb = "<!DOCTYPE a [<!ENTITY b 'x'>]><a>&b;</a>";
        assert!(environment(bomb.as_bytes()).is_err());
        assert!(environment(b"<a/>").is_err());
    }

    #[test]
    fn the_report_answers_the_goal() {
        let text = b"<GoalState><Incarnation>1</Incarnation><Container><ContainerId>c&amp;</ContainerId>
            <RoleInstanceList><RoleInstance><InstanceId>i</InstanceId></RoleInstance></RoleInstanceList></Container></GoalState>";
        let report = ready_report(&goal_state(text).unwrap());
        assert!(report.contains("<ContainerId>c&amp;</ContainerId>"));
        assert!(report.contains("<State>Ready</State>"));
    }
}
