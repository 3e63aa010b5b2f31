"""The formats of pictures, a module each; `formats` lists them."""
