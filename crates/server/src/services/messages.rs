//! Splitting of answers into messages that every client can decode.

use stead_api::operation;

use crate::router::ReadyAnswer;

/// Most bytes of a message's answers, except for a single larger one. One answer has little more than
/// [`stead_types::limits::ANSWER_LEN_MAX`], so that no message comes near the limit of a client's decoder.
pub(super) const MESSAGE_LEN_MAX: usize = 1 << 20;

/// Splits answers into messages.
pub(super) fn split_messages(answers: Vec<ReadyAnswer>) -> Vec<Vec<ReadyAnswer>> {
    let mut messages: Vec<Vec<ReadyAnswer>> = vec![Vec::with_capacity(answers.len())];
    let mut len = 0;
    for answer in answers {
        let answer_len = operation::answer_len(&answer.answer);
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
    use std::sync::Arc;

    use stead_api::proto::v1::{Answer, GetResponse, KeyValue, answer::Response};
    use stead_types::TenantNumber;

    use super::*;
    use crate::answers::AnswerAccount;

    fn answer(len: usize) -> ReadyAnswer {
        let item = Some(KeyValue {
            value: vec![0; len].into(),
            ..KeyValue::default()
        });
        let get = GetResponse { item, header: None };
        let answer = Answer {
            id: 1,
            response: Some(Response::Get(get)),
        };
        let account: Arc<AnswerAccount> = Arc::default();
        let permit = account.add(TenantNumber::new(1), 1);
        ReadyAnswer { answer, permit }
    }

    #[test]
    fn split_messages_keeps_large_answers_alone() {
        let sizes = [
            10,
            20,
            MESSAGE_LEN_MAX,
            30,
            MESSAGE_LEN_MAX * 3,
            MESSAGE_LEN_MAX / 2,
            MESSAGE_LEN_MAX / 3,
        ];
        let messages = split_messages(sizes.map(answer).into());
        let counts: Vec<usize> = messages.iter().map(Vec::len).collect();
        assert_eq!(counts, [2, 1, 1, 1, 2]);
    }
}
