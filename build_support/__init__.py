"""What setup.py and the Makefile need to build bolide: toolchain checks, the third-party sources, the C compile."""
