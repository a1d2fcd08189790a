"""ONNX, written from the plan and the weights, and verified against the network in onnxruntime."""
