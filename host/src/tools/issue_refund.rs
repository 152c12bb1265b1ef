//! The demonstration's refund tool. No money moves: it exists so that a human's confirmation can be seen at work, and
//! is offered only beside the demonstration's knowledge.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use jackfield_plugin_api::{CallContext, Effect, Tool, ToolError, ToolOutput, ToolSchema};
use serde_json::{Value, json};

use super::BuiltIn;

/// The tool.
pub(crate) fn issue_refund() -> BuiltIn {
    BuiltIn { schema: SCHEMA.clone(), tool: Arc::new(IssueRefund) }
}

static SCHEMA: LazyLock<Arc<ToolSchema>> = LazyLock::new(|| {
    let parameters = json!({
        "type": "object",
        "properties": {
            "order_id": {"type": "string", "description": "the order to refund"},
            "reason": {"type": "string", "description": "why, in a few words"},
        },
        "required": ["order_id"],
    });
    let description = "Refunds an order in full. Look the return policy up first; it cannot be undone. \
                       (Demonstration: no money moves.)";
    Arc::new(ToolSchema::new("issue_refund", description, parameters))
});

struct IssueRefund;

#[async_trait]
impl Tool for IssueRefund {
    fn schema(&self) -> ToolSchema {
        ToolSchema::clone(&SCHEMA)
    }

    async fn execute(&self, arguments: Value, _: CallContext) -> Result<ToolOutput, ToolError> {
        let order = arguments["order_id"].as_str().unwrap_or_default().trim();
        if order.is_empty() {
            return Err(ToolError::InvalidArguments("order_id is blank; name the order to refund".to_owned()));
        }
        let reason = arguments["reason"].as_str().map(str::trim).filter(|reason| !reason.is_empty());
        let reason = reason.map(|reason| format!(" (reason: {reason})")).unwrap_or_default();
        Ok(format!("The refund for order {order} was issued{reason}. It takes three to five business days to arrive.")
            .into())
    }

    fn effect(&self, _: &Value) -> Effect {
        Effect::Destructive
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::tools::call::tests::context;

    #[tokio::test]
    async fn it_answers_like_a_refund_and_declares_that_it_is_one() {
        let refund = issue_refund();
        assert_eq!(*refund.schema, refund.tool.schema());
        assert_eq!(refund.tool.effect(&json!({})), Effect::Destructive);
        let run = |arguments| refund.tool.execute(arguments, context());
        let text = run(json!({"order_id": "A-17", "reason": "broken"})).await.unwrap().to_text();
        assert!(
            text.contains("order A-17 was issued (reason: broken)") && text.contains("three to five business days")
        );
        assert!(matches!(run(json!({"order_id": " "})).await, Err(ToolError::InvalidArguments(_))));
    }
}
