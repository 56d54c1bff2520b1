//! The OCI process object of an execution.

use keelson_model::spec::{CapabilitySet, ProcessSpec, TerminalSpec};
use serde_json::{Value, json};

use crate::EngineError;
use crate::container::Container;
use crate::engine::Inner;
use crate::executions::ExecRequest;
use crate::spec::{capabilities, environment, merge_environment, set_member};

impl Inner {
    /// The OCI process object: the container's own, with the changes of the request.
    pub(crate) fn exec_process(
        &self,
        request: &ExecRequest,
        container: &Container,
        console_size: Option<[u16; 2]>,
    ) -> Result<Value, EngineError> {
        let snapshot = container.snapshot();
        let path = snapshot.run_directory.join("bundle/config.json");
        let bytes = std::fs::read(&path).map_err(EngineError::io("read", &path))?;
        let mut config: Value = serde_json::from_slice(&bytes).map_err(EngineError::json(&path))?;
        let mut process = config
            .get_mut("process")
            .map(Value::take)
            .unwrap_or_default();
        let name = match request.user.as_str() {
            "" => &snapshot.spec.process.user,
            name => name,
        };
        let user = self.exec_user(name, container)?;
        let ids = json!({
            "uid": user.uid,
            "gid": user.gid,
            "additionalGids": user.additional_gids,
        });
        set_member(&mut process, "user", ids);
        let held = self.exec_capabilities(request, &process);
        set_member(&mut process, "capabilities", held);
        let asked = ProcessSpec {
            terminal: request.tty.then(TerminalSpec::default),
            ..snapshot.spec.process.clone()
        };
        // Linked containers may have ended since this one was started.
        let linked = self.linked(&snapshot).unwrap_or_default();
        let linked = linked.iter();
        let link_variables: Vec<_> = linked
            .flat_map(|linked| linked.variables(&snapshot.name))
            .collect();
        let mut env = environment(&asked, &snapshot.host_name(), &user.home, &link_variables);
        merge_environment(&mut env, &request.env);
        set_member(&mut process, "env", json!(env));
        set_member(&mut process, "args", json!(request.args));
        set_member(&mut process, "terminal", json!(request.tty));
        if !request.working_dir.is_empty() {
            set_member(&mut process, "cwd", json!(request.working_dir));
        }
        let [rows, columns] = console_size.unwrap_or(request.console_size);
        let size = match request.tty && rows > 0 && columns > 0 {
            true => json!({ "height": rows, "width": columns }),
            false => Value::Null,
        };
        set_member(&mut process, "consoleSize", size);
        Ok(process)
    }

    /// As with execve(2): only root keeps the capabilities of the bounding set.
    fn exec_capabilities(&self, request: &ExecRequest, process: &Value) -> Value {
        let bounding = match request.privileged {
            true => json!(capabilities::granted(
                &CapabilitySet::All,
                self.facts.capabilities
            )),
            false => process
                .pointer("/capabilities/bounding")
                .cloned()
                .unwrap_or_else(|| json!([])),
        };
        let root = process.pointer("/user/uid").and_then(Value::as_u64) == Some(0);
        let held = if root { bounding.clone() } else { json!([]) };
        json!({ "bounding": bounding, "permitted": held, "effective": held })
    }
}
