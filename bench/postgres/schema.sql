-- Double-entry transfers as one stored function: what an application would write that keeps its
-- ledger in PostgreSQL and wants one round trip per transfer.
create table accounts (
    id int primary key,
    debits bigint not null default 0,
    credits bigint not null default 0,
    check (credits - debits >= -1000000000000)
) with (fillfactor = 70);

create table transfers (
    id bigserial primary key,
    debit int not null references accounts,
    credit int not null references accounts,
    amount bigint not null check (amount > 0),
    at timestamptz not null default now()
);

insert into accounts select number from generate_series(1, 100000) number;

-- Rows are locked in the order of their ids, so that two transfers never wait for each other.
create function transfer(payer int, payee int, units bigint) returns bigint language plpgsql as $$
declare
    made bigint;
begin
    update accounts set
        debits = debits + case when id = payer then units else 0 end,
        credits = credits + case when id = payee then units else 0 end
    where id = least(payer, payee);
    update accounts set
        debits = debits + case when id = payer then units else 0 end,
        credits = credits + case when id = payee then units else 0 end
    where id = greatest(payer, payee) and payer <> payee;
    insert into transfers (debit, credit, amount) values (payer, payee, units) returning id into made;
    return made;
end $$;
