\set payer random(1, 100000)
\set payee random(1, 100000)
\set units random(1, 100)
select transfer(:payer, :payee, :units);
