"""What a problem answers for its clients: gradients, local steps, objectives, features, work.

`linattn.types.Problem.oracle` and `linattn.data.deep_tokens.DeepProblem.oracle` make them; rounds
and theory see a problem through nothing else.
"""
