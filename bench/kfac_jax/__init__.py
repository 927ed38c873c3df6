"""K-FAC, KFRA and FITRE beside kfac-jax on CURVES: `python -m newtriton.bench.kfac_jax`."""
