"""What a model may call while it is trained: tools, which are the user's functions, and environments of several turns.

``[train] tools`` and ``[train] environment`` name them as ``[[train.reward]]`` names rewards. This package finds them,
says what is wrong with them before a model is loaded, and answers for what they do. TRL's trainer calls them.
"""
