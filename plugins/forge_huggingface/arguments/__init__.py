"""The keys of ``[train]``: the trainers' own arguments, with forge's defaults and bounds."""
