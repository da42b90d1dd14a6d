"""The methods of explanation. Imports nothing slow, because the command line lists them."""

METHODS = {  # function in `attribution`: (name, unit of its values)
    "gradcam": ("Grad-CAM", "strength, no unit"),
    "integrated_gradients": ("integrated gradients", "logits per pixel"),
    "occlusion": ("occlusion", "logits lost when covered"),
}
