"""Several clients at once."""

import threading

# Enough to overlap on two cores; every round is a new chance for a race.
ROUNDS = 20
CONTENDERS = 4


def at_once(actions):
    """Runs all actions from one starting line and gives their results."""
    gate = threading.Barrier(len(actions))
    results = [None] * len(actions)

    def run(index, action):
        gate.wait()
        results[index] = action()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(actions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_item_15_of_two_concurrent_commits_of_one_creation_exactly_one_is_accepted(
    post, get, creation, keypair
):
    issuer = keypair()
    for n in range(ROUNDS):
        sent = creation(issuer, {"race": n})
        answers = at_once([lambda: post(sent)] * 2)
        assert sorted(answer.status_code for answer in answers) == [202, 400]
        assert get(f"/transactions/{sent['id']}").json() == sent
        assert len(get("/blocks", transaction_id=sent["id"]).json()) == 1


def test_item_39_of_many_concurrent_spends_of_one_output_exactly_one_is_accepted(
    post, get, creation, transfer, keypair
):
    owner = keypair()
    recipients = [keypair() for _ in range(CONTENDERS)]
    for n in range(ROUNDS):
        created = creation(owner, {"contended": n})
        assert post(created).status_code == 202
        rivals = [transfer(created, owner, recipient) for recipient in recipients]
        answers = at_once([lambda each=each: post(each) for each in rivals])
        accepted = [rival for rival, a in zip(rivals, answers) if a.status_code == 202]
        assert len(accepted) == 1, [answer.text for answer in answers]
        for answer in answers:
            if answer.status_code != 202:
                assert answer.status_code == 400
                assert "(DoubleSpend)" in answer.json()["message"]
        assert get("/transactions", asset_id=created["id"]).json() == [created, accepted[0]]


def test_many_clients_at_once_each_get_their_own_answer(post, creation, keypair):
    issuers = [keypair() for _ in range(CONTENDERS * 4)]
    sent = [creation(issuer, {"mine": index}) for index, issuer in enumerate(issuers)]
    answers = at_once([lambda each=each: post(each) for each in sent])
    assert [answer.status_code for answer in answers] == [202] * len(sent)
    assert [answer.json() for answer in answers] == sent
