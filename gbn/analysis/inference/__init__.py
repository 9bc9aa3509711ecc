"""How sure a number is: decisions after Holm, power, resampling, survival, sensitivity to the target.

:mod:`decisions` (p values, Holm, what n pairs can decide) and :mod:`power` take numbers; :mod:`families` corrects
the rows of a table together; :mod:`evidence` and :mod:`sections` say how sure each row is; :mod:`survival` treats
misses as censored; :mod:`blocks` keeps machines apart; :mod:`sensitivity` moves the target; :mod:`validation`
measures what all of it is worth.
"""
