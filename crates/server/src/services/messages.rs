//! Answers in messages that every reader takes.

use stead_api::{operation, proto::v1::Answer};

/// A message is closed when its answers reach this many bytes; one answer has a little more than
/// [`stead_types::limits::ANSWER_LEN_MAX`] at most, so that no message comes near what its reader refuses.
const MESSAGE_LEN_MAX: usize = 1 << 20;

/// Splits answers that are ready into messages.
pub(super) fn messages(answers: Vec<Answer>) -> Vec<Vec<Answer>> {
    let mut messages: Vec<Vec<Answer>> = vec![Vec::with_capacity(answers.len())];
    let mut len = 0;
    for answer in answers {
        let answer_len = operation::answer_len(&answer);
        if len > 0 && len + answer_len > MESSAGE_LEN_MAX {
            messages.push(Vec::new());
            len = 0;
        }
        len += answer_len;
        if let Some(last) = messages.last_mut() {
            last.push(answer);
        }
    }
    messages
}

#[cfg(test)]
mod tests {
    use stead_api::proto::v1::{GetResponse, KeyValue, answer::Response};

    use super::*;

    fn answer(len: usize) -> Answer {
        let item = Some(KeyValue {
            value: vec![0; len].into(),
            ..KeyValue::default()
        });
        let get = GetResponse { item, header: None };
        Answer {
            id: 1,
            response: Some(Response::Get(get)),
        }
    }

    #[test]
    fn large_answers_go_alone_and_small_ones_together() {
        let sizes = [
            10,
            20,
            MESSAGE_LEN_MAX,
            30,
            MESSAGE_LEN_MAX * 3,
            MESSAGE_LEN_MAX / 2,
            MESSAGE_LEN_MAX / 3,
        ];
        let messages = messages(sizes.map(answer).into());
        let counts: Vec<usize> = messages.iter().map(Vec::len).collect();
        assert_eq!(counts, [2, 1, 1, 1, 2]);
    }
}
