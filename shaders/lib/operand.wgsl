// How most matmul kernels read lhs, rhs and gate.

alias Operand = Word;
