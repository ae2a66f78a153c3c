\timing on
CALL replay();
\timing off
