//! Counting tokens and money: sums over a turn's calls, and the estimate for gateways that count nothing.

use std::{iter::Sum, ops::Add};

use super::{ModelInfo, ModelMessage, ModelRequest, ModelUsage};
use crate::metrics::Spent;

/// Characters of one token, roughly; good enough to say "about".
const CHARS_PER_TOKEN: usize = 4;

impl ModelUsage {
    /// An estimate from characters, marked as one.
    pub fn estimate(prompt_chars: usize, completion_chars: usize) -> Self {
        let tokens = |chars: usize| chars.div_ceil(CHARS_PER_TOKEN) as u64;
        Self {
            prompt_tokens: tokens(prompt_chars),
            completion_tokens: tokens(completion_chars),
            cost_usd: 0.0,
            measured: false,
        }
    }

    fn is_nothing(&self) -> bool {
        self.prompt_tokens == 0 && self.completion_tokens == 0 && self.cost_usd == 0.0
    }

    /// What these tokens cost at the given prices; 0 when there are none.
    pub(super) fn price(&self, info: Option<&ModelInfo>) -> f64 {
        let price = |tokens: u64, each: Option<f64>| tokens as f64 * each.unwrap_or(0.0);
        info.map_or(0.0, |info| {
            price(self.prompt_tokens, info.input_cost_per_token)
                + price(self.completion_tokens, info.output_cost_per_token)
        })
    }
}

impl From<ModelUsage> for Spent {
    fn from(usage: ModelUsage) -> Self {
        let ModelUsage { prompt_tokens, completion_tokens, cost_usd, measured } = usage;
        Self { prompt_tokens, completion_tokens, cost_usd, measured }
    }
}

/// The sum is measured only when every part that counts is.
impl Add for ModelUsage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            prompt_tokens: self.prompt_tokens.saturating_add(other.prompt_tokens),
            completion_tokens: self.completion_tokens.saturating_add(other.completion_tokens),
            cost_usd: self.cost_usd + other.cost_usd,
            measured: match (self.is_nothing(), other.is_nothing()) {
                (true, false) => other.measured,
                (false, true) => self.measured,
                (true, true) => self.measured || other.measured,
                (false, false) => self.measured && other.measured,
            },
        }
    }
}

impl Sum for ModelUsage {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), Add::add)
    }
}

/// The characters of a request that the model reads.
pub(super) fn prompt_chars(request: &ModelRequest) -> usize {
    request.messages.iter().map(message_chars).sum()
}

fn message_chars(message: &ModelMessage) -> usize {
    let count = |text: &str| text.chars().count();
    match message {
        ModelMessage::System(text) | ModelMessage::User { text, .. } => count(text),
        ModelMessage::Assistant { text, reasoning, tool_calls } => {
            let calls = tool_calls.iter().map(|call| count(&call.name) + count(&call.arguments));
            count(text) + count(reasoning) + calls.sum::<usize>()
        }
        ModelMessage::Tool { content, .. } => count(content),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(prompt_tokens: u64, completion_tokens: u64) -> ModelUsage {
        ModelUsage { prompt_tokens, completion_tokens, cost_usd: 0.5, measured: true }
    }

    #[test]
    fn a_sum_of_measurements_is_one_and_an_estimate_spoils_it() {
        let sum: ModelUsage = [measured(3, 2), measured(10, 5)].into_iter().sum();
        assert_eq!(sum, ModelUsage { prompt_tokens: 13, completion_tokens: 7, cost_usd: 1.0, measured: true });
        assert!(!(measured(1, 1) + ModelUsage::estimate(4, 4)).measured);
    }

    #[test]
    fn four_characters_are_a_token() {
        let usage = ModelUsage::estimate(9, 4);
        assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.measured), (3, 1, false));
    }

    #[test]
    fn prices_are_per_token() {
        let info =
            ModelInfo { input_cost_per_token: Some(0.001), output_cost_per_token: Some(0.01), ..ModelInfo::default() };
        assert!((measured(10, 5).price(Some(&info)) - 0.06).abs() < 1e-12);
        assert_eq!(measured(10, 5).price(None), 0.0);
    }
}
