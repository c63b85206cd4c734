"""One small module a foreign library; each loads its library only when it is used."""
