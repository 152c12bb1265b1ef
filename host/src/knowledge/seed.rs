//! The demo's knowledge: two short policies, and a persona that uses them.

use super::Document;

/// The set that the demo's documents belong to.
pub const DEMO_DOCUMENT_SET: &str = "policies";

/// Instructions of the agent while the demo's documents are seeded.
pub const DEMO_PERSONA: &str = "\
You are the support assistant of a small online shop. Before you decide anything about a return or a refund, look the \
policy up with the `knowledge_search` tool and go by what it says, not by what shops usually do. When the policy allows \
the refund, use the `issue_refund` tool with the order's number; ask for the number if it was not given. When the \
policy does not allow it, say so kindly and give the reason. Keep answers short.";

const RETURNS: &str = "\
# Returns and refunds

Goods may be returned within 17 days of delivery. The 17 days begin on the day after the parcel arrives, and it is \
enough to send the item back before they end. Items must be unused and complete.

Return requests that come later than 17 days after delivery are refused. Refunds go to the original means of payment.";

const SHIPPING: &str = "\
# Shipping

Standard delivery takes five to seven business days. Expedited delivery takes two business days and has to be chosen \
when the order is placed. A tracking number is sent by mail as soon as the parcel has left the warehouse.";

/// The demo's documents, for the given organisation.
pub fn demo_documents(org_id: &str) -> Vec<Document> {
    [("policies/returns.md", RETURNS), ("policies/shipping.md", SHIPPING)]
        .map(|(source, text)| Document {
            id: source.to_owned(),
            source: source.to_owned(),
            text: text.to_owned(),
            org_id: org_id.to_owned(),
            acl: None,
            document_set: Some(DEMO_DOCUMENT_SET.to_owned()),
            origin: None,
        })
        .into()
}
