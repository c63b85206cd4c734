"""Network parts that any agent can use: exits, Bernoulli units, masks, surgery."""
